# make demo: the main job on an embedded default.   make test: the whole test suite.   Both set everything up first.
PYTHON ?= python3
BIN := .venv/bin
export PYTHONUNBUFFERED := 1

.PHONY: demo test lint setup clean

setup: .venv/installed

.venv/installed: setup.cfg pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(f'Python 3.11 or newer is needed, this is {sys.version.split()[0]}; try make PYTHON=python3.11' if sys.version_info < (3, 11) else 0)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/python train.py --config configs/demo.yaml --init quartznet/assets/english_synthetic.pt --lang es --out runs/demo-fine-tuned
	$(BIN)/python train.py --config configs/demo.yaml --from-scratch --lang es --out runs/demo-from-scratch
	$(BIN)/python -m quartznet.report runs/demo-fine-tuned runs/demo-from-scratch --png runs/demo-curves.png
	$(BIN)/python evaluate.py --checkpoint runs/demo-fine-tuned --data corpora/synthetic-es --split test --lang es --show 10

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --line-length 120 .

clean:
	rm -rf runs corpora/synthetic-*
