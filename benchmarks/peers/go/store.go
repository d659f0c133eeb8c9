package main

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	paymentPrefix = 'p' // merchant/checkout id → payment
	changePrefix  = 'c' // u64 sequence → change
	batchMax      = 512
	waitingMax    = 4096
)

var (
	metaLastSequence = []byte("m/last_sequence")
	metaIncarnation  = []byte("m/incarnation")

	errOverloaded = errors.New("as much work waiting as may be held")
	errFailed     = errors.New("the store failed")
)

type outcome int

const (
	accepted outcome = iota
	replayed
	conflicted
	failed
)

type result struct {
	outcome outcome
	record  []byte // replayed: the payment as it is
}

type acceptance struct {
	key         []byte
	record      []byte
	fingerprint []byte
	done        chan result
}

// store is one pebble with one committer: all that waits goes into one batch and one fsync, and what arrives meanwhile
// forms the next. A payment and its change record are in the same batch; the change log has no gaps.
type store struct {
	db          *pebble.DB
	waiting     chan *acceptance
	stopped     chan struct{}
	broken      atomic.Bool
	incarnation []byte
	last        uint64
}

func openStore(path string) (*store, error) {
	cache := pebble.NewCache(64 << 20)
	defer cache.Unref()
	options := &pebble.Options{
		Cache:              cache,
		MemTableSize:       16 << 20,
		FormatMajorVersion: pebble.FormatNewest,
		Logger:             pebble.DefaultLogger,
	}
	for i := range options.Levels {
		options.Levels[i].FilterPolicy = bloom.FilterPolicy(10) // a new id is looked up first
	}
	db, err := pebble.Open(path, options)
	if err != nil {
		return nil, err
	}
	s := &store{db: db, waiting: make(chan *acceptance, waitingMax), stopped: make(chan struct{})}
	if err := s.identify(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	go s.run()
	return s, nil
}

func (s *store) identify() error {
	if last, err := s.get(metaLastSequence); err == nil {
		s.last = binary.BigEndian.Uint64(last)
	} else if !errors.Is(err, pebble.ErrNotFound) {
		return err
	}
	incarnation, err := s.get(metaIncarnation)
	if errors.Is(err, pebble.ErrNotFound) {
		incarnation = make([]byte, 16)
		_, _ = rand.Read(incarnation)
		err = s.db.Set(metaIncarnation, incarnation, pebble.Sync)
	}
	s.incarnation = incarnation
	return err
}

func (s *store) close() {
	close(s.waiting)
	<-s.stopped
	_ = s.db.Close()
}

func (s *store) get(key []byte) ([]byte, error) {
	value, closer, err := s.db.Get(key)
	if err != nil {
		return nil, err
	}
	defer func() { _ = closer.Close() }()
	return bytes.Clone(value), nil
}

func paymentKey(merchant, checkoutID string) []byte {
	key := make([]byte, 0, 2+len(merchant)+len(checkoutID))
	key = append(append(append(key, paymentPrefix), merchant...), '/')
	return append(key, checkoutID...)
}

// submit waits until the payment is on disk.
func (s *store) submit(a *acceptance) (result, error) {
	if s.broken.Load() {
		return result{}, errFailed
	}
	select {
	case s.waiting <- a:
		r := <-a.done
		if r.outcome == failed {
			return r, errFailed
		}
		return r, nil
	default:
		return result{}, errOverloaded
	}
}

func (s *store) run() {
	defer close(s.stopped)
	batch := make([]*acceptance, 0, batchMax)
	results := make([]result, 0, batchMax)
	for first := range s.waiting {
		batch = append(batch[:0], first)
		for len(batch) < batchMax && len(s.waiting) > 0 {
			batch = append(batch, <-s.waiting)
		}
		var err error
		if results, err = s.commit(batch, results[:0]); err != nil {
			s.broken.Store(true)
		}
		for i, a := range batch {
			if err != nil {
				a.done <- result{outcome: failed}
			} else {
				a.done <- results[i]
			}
		}
	}
}

func (s *store) commit(batch []*acceptance, results []result) ([]result, error) {
	if s.broken.Load() {
		return results, errFailed
	}
	b := s.db.NewBatch()
	defer func() { _ = b.Close() }()
	now := time.Now().UnixMicro()
	fresh := make(map[string]*acceptance, len(batch))
	last := s.last
	for _, a := range batch {
		known, err := s.known(a, fresh)
		if err != nil {
			return results, err
		}
		if known != nil {
			results = append(results, *known)
			continue
		}
		last++
		fresh[string(a.key)] = a
		if err := errors.Join(b.Set(a.key, a.record, nil), b.Set(changeKey(last), s.change(a, last, now), nil)); err != nil {
			return results, err
		}
		results = append(results, result{outcome: accepted})
	}
	if last == s.last {
		return results, nil
	}
	if err := b.Set(metaLastSequence, binary.BigEndian.AppendUint64(nil, last), nil); err != nil {
		return results, err
	}
	if err := b.Commit(pebble.Sync); err != nil {
		return results, err
	}
	s.last = last
	return results, nil
}

// known is the answer to an id that is here already, in the store or earlier in the same batch; nil for a new one.
func (s *store) known(a *acceptance, fresh map[string]*acceptance) (*result, error) {
	if earlier := fresh[string(a.key)]; earlier != nil {
		return compare(a, earlier.fingerprint, earlier.record), nil
	}
	record, err := s.get(a.key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p, err := decodePayment(record)
	if err != nil {
		return nil, err
	}
	return compare(a, p.fingerprint, record), nil
}

func compare(a *acceptance, fingerprint, record []byte) *result {
	if bytes.Equal(a.fingerprint, fingerprint) {
		return &result{replayed, record}
	}
	return &result{outcome: conflicted}
}

func changeKey(sequence uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{changePrefix}, sequence)
}

// change is proto/tollgate/v1/change.proto: the payment is carried as the bytes that are stored.
func (s *store) change(a *acceptance, sequence uint64, nowUs int64) []byte {
	b := make([]byte, 0, len(a.record)+128)
	b = protowire.AppendBytes(protowire.AppendTag(b, 1, protowire.BytesType), a.key[1:])
	b = appendNumber(b, 2, 0)
	b = protowire.AppendBytes(protowire.AppendTag(b, 3, protowire.BytesType), s.incarnation)
	b = appendNumber(b, 4, 1)
	b = appendNumber(b, 5, int64(sequence))
	b = appendNumber(b, 6, nowUs)
	return protowire.AppendBytes(protowire.AppendTag(b, 10, protowire.BytesType), a.record)
}
