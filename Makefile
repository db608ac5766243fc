# make demo: the main job on an embedded default.   make test: the whole test suite.   Both set everything up first.
PYTHON ?= python3
BIN := .venv/bin
export PYTHONUNBUFFERED := 1

.PHONY: demo test gpu lint setup clean

setup: .venv/installed

.venv/installed: setup.cfg pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(f'Python 3.11 or newer is needed, this is {sys.version.split()[0]}; try make PYTHON=python3.11' if sys.version_info < (3, 11) else 0)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# KenLM is compiled; where that fails, the tests that compare with it are skipped and say so.
.venv/kenlm: .venv/installed
	$(BIN)/python -m pip install --quiet kenlm || echo "kenlm cannot be installed here (has this machine a C++ compiler?): tests against it are skipped"
	touch $@

# Run again, it finds both trainings finished (or continues the one that was stopped) and goes on to the results.
demo: setup
	@echo; echo "== 1/5  Spanish number phrases, said by espeak-ng"
	$(BIN)/python -m data.synthetic --lang es
	@echo; echo "== 2/5  fine-tuning the small English network to Spanish"
	$(BIN)/python train.py --config configs/demo.yaml --lang es --data corpora/synthetic-es --init quartznet/assets/english_synthetic.pt --out runs/demo-fine-tuned
	@echo; echo "== 3/5  the same network, data, steps and schedule from random weights"
	$(BIN)/python train.py --config configs/demo.yaml --lang es --data corpora/synthetic-es --from-scratch --out runs/demo-from-scratch
	@echo; echo "== 4/5  both on the test split: other phrases, other voices"
	$(BIN)/python evaluate.py --checkpoint runs/demo-from-scratch --data corpora/synthetic-es --split test --worst 0 --json runs/demo-from-scratch/test.json
	$(BIN)/python evaluate.py --checkpoint runs/demo-fine-tuned --data corpora/synthetic-es --split test --worst 0 --json runs/demo-fine-tuned/test.json --show 10
	@echo; echo "== 5/5  fine-tuned against from scratch"
	$(BIN)/python -m quartznet.report runs/demo-fine-tuned runs/demo-from-scratch --labels fine-tuned,from-scratch --title 'English to Spanish: fine-tuned against from scratch' --png runs/demo-curves.png

test: setup .venv/kenlm
	$(BIN)/python -m pytest

# On a machine with a GPU: the tests that need one, then every figure of docs/gpu.md. DATA, INIT and CODE add real clips.
gpu: setup
	-$(BIN)/python -m pytest -m "gpu or not slow" tests/test_kernels.py tests/test_fused.py tests/test_backend.py tests/test_kernel_test.py tests/test_ctc_kernel.py tests/test_novograd_kernel.py tests/test_novograd_gpu.py tests/test_graphs.py tests/test_graphed.py tests/test_waits.py tests/test_train_kernels.py
	$(BIN)/python -m benchmarks.gpu --out runs/gpu $(if $(DATA),--data $(DATA)) $(if $(INIT),--init $(INIT)) $(if $(CODE),--lang $(CODE))

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --line-length 120 .

clean:
	rm -rf runs corpora/synthetic-*
