# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo

.PHONY: env test faults soak audit lint types demo real bench clean

# The strict editable install links every module by name, so that type checkers and editors can follow it; a module
# that comes or goes therefore needs the installation again, which takes seconds.
SOURCES := $(sort $(wildcard */*.py */*/*.py */*.yaml */*/*.yaml */*/*/*.yaml */*.jinja */*/*.jinja))
LISTING := $(VENV)/.listing

env: $(VENV)/.installed

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] <= (3, 13); print("" if ok else f"Python {sys.version.split()[0]} is not 3.11 to 3.13: run make PYTHON=/path/to/python3.12"); sys.exit(not ok)'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.packages: $(VENV)/.created pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt setuptools wheel
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --config-settings editable_mode=strict --editable '.[dev]'
	@rm -f $(LISTING)
	@touch $@

$(LISTING): FORCE
	@mkdir -p $(VENV)
	@echo '$(SOURCES)' | cmp -s - $@ || echo '$(SOURCES)' > $@

$(VENV)/.installed: $(VENV)/.packages $(LISTING)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --config-settings editable_mode=strict --editable .
	@touch $@

.PHONY: FORCE
FORCE:

# All tests; or ARGS="tests/test_x.py -k word". Two files at a time, but for the fault tests: those kill and starve things.
test: env
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	$(BIN)/python -m pytest -n 2 --dist loadfile --ignore=tests/faults
	$(BIN)/python -m pytest tests/faults
endif

# The fault tests alone, N times as often as `make test` runs them; puts their table into README.md.
N := 1
faults: env
	FRAME_FAULTS=$(N) FRAME_FAULTS_REPORT=1 $(BIN)/python -m pytest tests/faults -o timeout=0 $(ARGS)

# Builds and trains for so many minutes with faults mixed at random (SEED), and compares both with a calm run's.
MINUTES := 60
SEED := 0
soak: env
	PYTHONPATH=tests:tests/faults $(BIN)/python tests/faults/soak.py $(MINUTES) --seed $(SEED)

# Known vulnerabilities of the packages in constraints.txt. The program has an environment of its own.
audit: env
	@test -x $(VENV)/audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)/audit && $(VENV)/audit/bin/python -m pip install --quiet pip-audit; }
	@$(BIN)/python .ci/audit $(VENV)/audit/bin/pip-audit constraints.txt

lint: types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: env
	MYPYPATH=$$(cat $(VENV)/lib/python3.*/site-packages/__editable__.frame_encoder-*.pth) $(BIN)/mypy -p frame

# Generates labelled videos, builds a cache of them with real teachers (random weights: no model hub is needed), checks
# every byte, trains both stages from it, the second also without memory, and evaluates teacher, stage 1 and stage 2 on
# the generated videos: one table, and demo/results/report.html with pictures. demo/report.html has all of it: the cache,
# its features as pictures, the curves and the tables. demo/show/show.png has the three encoders' features beside each
# other. With weights at hand: make demo WEIGHTS="dino_vits16=FILE clip_vitb32=FILE".
SPATIAL := dino_vits16
SEMANTIC := clip_vitb32
WEIGHTS := random
CACHE := --dataset sprites --source $(DEMO)/sprites --out $(DEMO)/cache --size 160 --teachers $(SPATIAL),$(SEMANTIC) $(WEIGHTS:%=--weights %)
STAGE2 := $(BIN)/frame-train stage2 --cache $(DEMO)/cache --init $(DEMO)/stage1 --recipe demo
SPRITES := $(BIN)/frame-eval sprites --data $(DEMO)/sprites --schedule 100
# Of WEIGHTS, what is for the spatial teacher: its file, or `random`; without either, the hub.
TEACHER := $(firstword $(patsubst $(SPATIAL)=%,%,$(filter $(SPATIAL)=%,$(WEIGHTS))) $(filter random,$(WEIGHTS)))

demo: env
	$(BIN)/frame-cache sprites $(DEMO)/sprites --clips 20 --frames 20
	$(BIN)/frame-cache plan $(CACHE)
	$(BIN)/frame-cache build $(CACHE)
	$(BIN)/frame-cache verify $(DEMO)/cache --against-teacher 4
	$(BIN)/frame-cache info $(DEMO)/cache
	$(BIN)/frame-train stage1 --cache $(DEMO)/cache --out $(DEMO)/stage1 --recipe demo --spatial $(SPATIAL).patch --semantic $(SEMANTIC).cls --resume
	$(STAGE2) --out $(DEMO)/stage2 --resume
	$(STAGE2) --out $(DEMO)/stage2-no-memory --set memory_frames=0 --resume
	$(BIN)/frame-eval deltas --data $(DEMO)/cache --out $(DEMO)/results/deltas
	$(SPRITES) --encoder $(SPATIAL) $(TEACHER:%=--weights %) --out $(DEMO)/results/teacher
	$(SPRITES) --encoder $(DEMO)/stage1 --out $(DEMO)/results/stage1
	$(SPRITES) --encoder $(DEMO)/stage2 --out $(DEMO)/results/stage2
	$(BIN)/frame-eval compare $(DEMO)/results/teacher $(DEMO)/results/stage1 $(DEMO)/results/stage2
	$(BIN)/frame-eval report $(DEMO)/results --out $(DEMO)/results
	$(BIN)/frame-eval show --video $(DEMO)/sprites/videos/slide/sprite-00000.mp4 --size 320 --encoder $(SPATIAL) $(TEACHER:%=--weights $(SPATIAL)=%) --encoder $(DEMO)/stage1 --encoder $(DEMO)/stage2 --out $(DEMO)/show
	$(BIN)/frame-cache view $(DEMO)/cache --out $(DEMO)/report.html --run $(DEMO)/stage1 --run $(DEMO)/stage2 --run $(DEMO)/stage2-no-memory --results $(DEMO)/results

# The whole way on real videos and real weights, and RESULTS.md of it: plan, build, verify, both stages from scratch and
# from the teacher with three seeds each, every evaluation. DATA holds them (see bench/real/__main__.py); SIZE=gpu is for
# a GPU. About an hour on two cores; stopped, it goes on. What has ended well is not run again, whatever the code is by
# then: after a change remove $(REAL). MORE=--ablations trains stage 2 in other ways, too.
DATA :=
SIZE := cpu
REAL := real
MORE :=
real: env
	@test -n "$(DATA)" || { echo "Where are the videos? make real DATA=FOLDER (see bench/real/__main__.py)"; exit 2; }
	$(BIN)/python bench/real --data $(DATA) --size $(SIZE) --out $(REAL) $(MORE)

bench: env
	$(BIN)/python bench/store.py
	$(BIN)/python bench/build.py
	$(BIN)/python bench/train.py
	$(BIN)/python bench/eval.py
	$(BIN)/python bench/eval_metrics.py

clean:
	rm -rf $(DEMO) $(REAL) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
