// Command peer is what a good Go engineer would build in the place of one shard: net/http in front of pebble, with
// group commit and an fsync before each answer. It takes and answers what a shard's POST and GET /v1/payments do
// (DESIGN, section 5), so that the gateway can be measured beside it. It ships nothing to Kafka.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8031", "address to serve")
	data := flag.String("data", "", "folder of the database")
	apiKey := flag.String("api-key", "", "the one secret key")
	merchant := flag.String("merchant", "demo", "whose key it is")
	signingKey := flag.String("signing-key", "", "signs client secrets")
	gcPercent := flag.Int("gc-percent", 400, "GOGC: the live heap is small, so collect seldom")
	flag.Parse()
	if *data == "" || *apiKey == "" || len(*signingKey) < 32 {
		log.Fatal("-data, -api-key and -signing-key (at least 32 characters) are needed.")
	}
	debug.SetGCPercent(*gcPercent)
	if err := run(*listen, *data, newGateway(*apiKey, *merchant, *signingKey)); err != nil {
		log.Fatal(err)
	}
}

func run(listen, data string, gateway *gateway) error {
	store, err := openStore(data)
	if err != nil {
		return err
	}
	defer store.close()
	gateway.store = store
	server := &http.Server{
		Addr:              listen,
		Handler:           gateway.routes(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       75 * time.Second,
	}
	stopped := make(chan os.Signal, 1)
	signal.Notify(stopped, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stopped
		deadline, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(deadline)
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
