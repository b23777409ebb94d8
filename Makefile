# Each target is what you would type by hand. `make run` and `make test` need Python >= 3.11 alone.
PYTHON ?= python3
BIN = .venv/bin
READY = .venv/.ready

.PHONY: setup run test lab bench detect clean

run: $(READY)  ## notebooks 00 to 05, headless, from nothing to a trained and evaluated model
	@$(BIN)/python -m hand_lib.workbook

test: $(READY)  ## pytest and every notebook through nbval, two files at a time
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --nbval-lax \
		--nbval-current-env --nbval-cell-timeout=300 tests notebooks

lab: $(READY)  ## JupyterLab in this folder, at notebooks/00_start_here.ipynb
	@$(BIN)/jupyter lab --notebook-dir=. --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb

bench: $(READY)  ## the benchmark notebook, executed into runs/
	@$(BIN)/python -m hand_lib.workbook 07_benchmarks

detect: $(READY)  ## MediaPipe's detector; its OpenCV needs libGL, ours does not and goes over it
	@$(BIN)/python -m pip install -q -c constraints.txt -e ".[detect]"
	@$(BIN)/python -m pip install -q -c constraints.txt --no-deps --force-reinstall opencv-python-headless

setup: $(READY)

$(READY): pyproject.toml constraints.txt setup.sh
	@sh setup.sh "$(PYTHON)"

clean:  ## removes the environment; data and runs stay
	rm -rf .venv
