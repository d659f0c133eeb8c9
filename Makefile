# Everything is run through these targets; CI calls the same ones. Needs Python >= 3.11 and make, nothing else.

PYTHON ?= python3
ARGS ?=
COUNT ?= 200000
WIRE ?= 50000
SECONDS ?= 60
USERS ?= 20
RATE ?= 5
MINUTES ?= 60
PAYMENTS ?= 1000000
ROUNDS ?= 300
SEED ?= 1
WORKERS ?= 4
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help up down check test fault-disk fault-kafka kill-rounds scale-out fuzz bench bench-gateway bench-overload bench-scale bench-ack bench-cdc bench-pipeline proto lock

help:
	@echo 'make up [ARGS="--processors 3"]  start the whole stack, pay once, leave it running'
	@echo 'make down                        stop it'
	@echo 'make test [ARGS="-k ring"] [WORKERS=4]  run the tests'
	@echo 'make fuzz [COUNT=… WIRE=…]      bodies against the oracle, broken HTTP, requests from the document'
	@echo 'make fault-disk [SEEDS=20]       break the disk under a shard in every way we know'
	@echo 'make fault-kafka [SEEDS=5 DOWN=180]  answer, hang, kill and refuse as Kafka, minutes of outage'
	@echo 'make kill-rounds [ROUNDS=… SEED=…] kill -9 under load, round by round; goes on where it stopped'
	@echo 'make processor-rounds [ROUNDS=… SEED=…] a fault at a step of the pipeline, round by round; goes on too'
	@echo 'make simulate [SEED=…] [STEPS=…] [SEEDS=…] the whole core on a virtual machine, one seed or many'
	@echo 'make campaign [SEED=… MINUTES=…] every fault over a whole stack under load, then tollgate verify; adds up too'
	@echo 'make campaign-mutations          whether that finds deliberate bugs'
	@echo 'make outages [DOWN=120 RATE=40]  Postgres, Kafka and the PSP away for minutes under load'
	@echo 'make mutations [SEEDS=…]         deliberate bugs: does the simulation find each of them?'
	@echo 'make scale-out [SEED=…]          2, 3 and 2 shards and a dead one under 500 payments/s'
	@echo 'make budget                      sixty payments, three processors, two calls a second'
	@echo 'make stripe-crashes [SEEDS=100]  die, and be killed, around calls to a Stripe without idempotency keys'
	@echo 'make check                       ruff, mypy, fresh generated code'
	@echo 'make bench                       time an idle payment from 202 to succeeded'
	@echo 'make bench-gateway               the gateway beside its limits and its peers'
	@echo 'make bench-scale                 a shard with a million payments beside an empty one'
	@echo 'make bench-overload              three times its capacity for a minute: who is served, who is refused'
	@echo 'make bench-ack                   what a 202 costs that waits for Kafka (ack=replicated)'
	@echo 'make bench-cdc                   the tailer beside a bare producer, and what it costs the shard'
	@echo 'make bench-pipeline              accept to terminal with everything on, hop by hop'
	@echo 'make bench-verify [PAYMENTS=1000000]  how long tollgate verify takes, and in how much memory'
	@echo 'make load [USERS=… RATE=… SECONDS=…]  shoppers on the running stack, every answer checked at the end'
	@echo 'make load-day [MINUTES=60]       a million payments and ten million queries a day, at that rate'
	@echo 'make proto                       generate tollgate/v1 from proto/'
	@echo 'make lock                        resolve the dependencies anew'

up: $(VENV)/.installed
	@$(BIN)/tollgate up --detach --first-payment $(ARGS)

down: $(VENV)/.installed
	@$(BIN)/tollgate down $(ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest -q tests/tidy

# Side by side on as many workers; each waits more than it computes. WORKERS=0 is one after the other, in one process.
test: $(VENV)/.installed-dev
	$(BIN)/pytest -n $(WORKERS) $(ARGS)

# COUNT bodies in process, WIRE requests over the wire to a shard and as many through nginx, and SECONDS of coverage-guided
# bodies where atheris can be had. TOLLGATE_FUZZ_SEED draws others.
FUZZ_FOLDER := $(VENV)/fuzz
fuzz: $(VENV)/.installed-dev
	TOLLGATE_FUZZ_COUNT=$(COUNT) TOLLGATE_FUZZ_WIRE=$(WIRE) TOLLGATE_FUZZ_EXAMPLES=200 $(BIN)/pytest tests/fuzz $(ARGS)
	@mkdir -p $(FUZZ_FOLDER)
	@if $(PIP) --only-binary :all: --require-hashes -r requirements-fuzz.lock 2>/dev/null; then \
		$(BIN)/python -m tests.fuzz.atheris_admission $(FUZZ_FOLDER) tests/fuzz/corpus -dict=tests/fuzz/admission.dict \
			-artifact_prefix=$(FUZZ_FOLDER)/ -max_len=4096 -max_total_time=$(SECONDS); \
	else echo 'atheris has no wheel for this Python and platform: the coverage-guided part is skipped'; fi
# Every fault of the disk, and files broken with many seeds; the default run has one of each kind.
fault-disk: $(VENV)/.installed-dev
	DISK_FAULT_SEEDS=$(or $(SEEDS),20) $(BIN)/pytest tests/fault/test_disk_faults.py tests/fault/test_corrupt_store.py \
		tests/fault/test_full_volume.py tests/fault/test_lost_volumes.py $(ARGS)

# Every answer of a broker before and after the append, storms of them, outages, three nodes; DOWN is seconds.
fault-kafka: $(VENV)/.installed-dev
	KAFKA_FAULT_SEEDS=$(or $(SEEDS),5) KAFKA_FAULT_DOWN_S=$(or $(DOWN),180) KAFKA_FAULT_TIMEOUT_S=900 $(BIN)/pytest \
		tests/fault/test_kafka_answers.py tests/fault/test_kafka_trouble.py tests/fault/test_kafka_cluster.py \
		tests/e2e/test_webhooks_stack.py $(ARGS)

# Counts add up over runs in benchmarks/results/kill-rounds.json; the default test run plays 8 rounds of a fixed seed.
kill-rounds: $(VENV)/.installed-dev
	$(BIN)/python -m tests.fault.killing --rounds $(ROUNDS) --seed $(SEED) $(ARGS)

# A fault at a step of the pipeline in each round; counts add up in benchmarks/results/processor-rounds.json. The
# default test run plays 8 rounds of a fixed seed. Why gRPC knows nothing of forks: tests/conftest.py.
.PHONY: processor-rounds
processor-rounds: export GRPC_ENABLE_FORK_SUPPORT = 0
processor-rounds: $(VENV)/.installed-dev
	$(BIN)/python -m tests.fault.effects --rounds $(ROUNDS) --seed $(SEED) $(ARGS)

# The whole core in one process on a virtual clock, disk and network. One seed, or with SEEDS as many from SEED on: those
# add up over runs in benchmarks/results/simulation.json. The default test run plays 50 seeds.
.PHONY: simulate
simulate: $(VENV)/.installed-dev
	$(BIN)/python -m tests.simulation --seed $(SEED) --steps $(or $(STEPS),1000) $(if $(SEEDS),--rounds $(SEEDS)) $(ARGS)

# Storms of every fault over a whole stack under load, then `tollgate verify`; MINUTES of a seed are played, five at most in
# one storm, and counts add up in benchmarks/results/campaign.json. The default test run plays 90 seconds of a fixed seed.
.PHONY: campaign campaign-mutations
campaign: $(VENV)/.installed-dev
	$(BIN)/python -m tests.fault.storm --minutes $(or $(MINUTES),5) --seed $(SEED) $(ARGS)

# The same storms on sources with one deliberate bug each; ARGS="--control" on the sources as they are.
campaign-mutations: $(VENV)/.installed-dev
	$(BIN)/python -m tests.fault.storm.mutations $(ARGS)

# Deliberate bugs, each in a process of its own: does the simulation find them? Writes its table into docs/proof.md.
.PHONY: mutations
mutations: $(VENV)/.installed-dev
	$(BIN)/python -m tests.mutations $(if $(SEEDS),--seeds $(SEEDS)) $(ARGS)

# Postgres, Kafka and the PSP away for DOWN seconds each, killed and frozen, at RATE payments/s: what clients were told,
# lag, calls and memory. The default test run has one short outage.
.PHONY: outages
outages: $(VENV)/.installed-dev
	OUTAGE_DOWN_S=$(or $(DOWN),120) OUTAGE_PER_SECOND=$(or $(RATE),40) $(BIN)/pytest -s tests/fault/test_outages.py $(ARGS)

# Shards are added, killed and removed under load; the default test run does the same with fewer payments.
scale-out: $(VENV)/.installed-dev
	SCALE_OUT_STRICT=1 SCALE_OUT_PER_SECOND=500 SCALE_OUT_PIECE=3000 SCALE_OUT_SEED=$(SEED) \
		$(BIN)/pytest -s tests/fault/test_scale_out.py $(ARGS)

# The default test run pays six.
.PHONY: budget
budget: $(VENV)/.installed-dev
	BUDGET_PAYMENTS=60 $(BIN)/pytest tests/integration/processor/test_budget_over_processors.py $(ARGS)

.PHONY: stripe-crashes
# Processors that die around every second call to localstripe, in one process, SEEDS times; real ones killed -9 at every
# moment of every call. The default test run has one of these, and four of those.
stripe-crashes: $(VENV)/.installed-dev
	STRIPE_CRASH_SEEDS=$(or $(SEEDS),100) $(BIN)/pytest tests/integration/processor/test_stripe_crashes.py \
		tests/fault/test_stripe_kills.py $(ARGS)

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/idle_latency.py $(ARGS)

bench-gateway: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.bench_gateway $(ARGS)

bench-scale: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.scale $(ARGS)

bench-overload: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.overload $(ARGS)

bench-ack: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.bench_ack $(ARGS)

bench-cdc: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.cdc $(ARGS)

bench-pipeline: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.pipeline $(ARGS)

.PHONY: bench-verify
bench-verify: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.verify --payments $(PAYMENTS) $(ARGS)

# Both need a running stack (`make up`) and end with `tollgate verify` over all that their clients were told.
.PHONY: load load-day
load: $(VENV)/.installed-dev
	$(BIN)/python -m locust -f benchmarks/load/locustfile.py --headless --users $(USERS) --spawn-rate $(RATE) \
		--run-time $(SECONDS)s --stop-timeout 120 --only-summary $(ARGS)

load-day: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.load.day --minutes $(MINUTES) $(ARGS)

# The generator writes an empty gRPC module for a file without a service; none is kept.
proto: $(VENV)/.installed-dev
	$(BIN)/python -m grpc_tools.protoc -Iproto \
		--plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
		--plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
		--python_out=. --grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. \
		proto/tollgate/v1/*.proto
	rm -f $(foreach proto,$(shell grep -L '^service ' proto/tollgate/v1/*.proto),\
		$(patsubst proto/%.proto,%_pb2_grpc.py*,$(proto)))

COMPILE := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes -q --no-header
lock: $(VENV)/.installed-dev
	$(COMPILE) pyproject.toml --extra local --extra dev -o requirements-dev.lock
	$(COMPILE) pyproject.toml --extra local -c requirements-dev.lock -o requirements.lock
	echo 'atheris==3.0.0' | $(COMPILE) - -o requirements-fuzz.lock
	echo uv | $(COMPILE) - -c requirements-dev.lock -o requirements-uv.lock

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'Tollgate needs Python 3.11 or newer; $(PYTHON) is older or missing. Name another: make PYTHON=python3.12 …' >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)

# What is installed is exactly what the lock names, hash by hash; then the checkout itself, without asking a registry. uv
# takes seconds of CPU where pip takes most of a minute; pip is for where only pip knows the way to its registry.
define install
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r $(1) || \
		{ echo 'uv could not install $(1): pip tries, which takes longer'; $(PIP) --require-hashes -r $(1); }
	$(PIP) --no-deps --no-build-isolation --editable .
endef

$(BIN)/uv: | $(BIN)/python
	$(PIP) --require-hashes -r requirements-uv.lock

$(VENV)/.installed: requirements.lock pyproject.toml | $(BIN)/uv
	$(call install,requirements.lock)
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock pyproject.toml | $(BIN)/uv
	$(call install,requirements-dev.lock)
	@touch $@ $(VENV)/.installed
