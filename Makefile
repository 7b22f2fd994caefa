# `make help` lists what there is. All that is needed beforehand: make, python3 (3.10 to 3.12) with venv, and a package
# registry that pip reaches. Everything is installed into .venv, nothing anywhere else.

SHELL := /bin/sh
VENV  := .venv
PY    := $(VENV)/bin/python
READY := $(VENV)/.installed
TEST_WORKERS ?= 3

# Set by the user of `make run`; exported, so that a recipe sees them as shell variables and any character survives.
export OUT DATA_DIR SAVE_DIR PRESET EPOCHS BATCH_SIZE LEARNING_RATE MAX_VIDEOS_PER_CLASS LAYOUT SEED RUN_NAME PYTHON VIDEO CHECKPOINT ONLY LONGEST REHEARSAL_DIR

# Threads that spin while they wait slow down another process on the same cores several times over; sleeping costs a tenth.
export OMP_WAIT_POLICY ?= PASSIVE
# The kernel "python3" is that of .venv, whatever the user has installed beside it.
export JUPYTER_PREFER_ENV_PATH := 1

.DEFAULT_GOAL := help
.PHONY: help docs install check-data-dir app run bench detector gpu gpu-pack gpu-worlds rehearsal test test-reliability lab format export clean-notebooks readme prepare constraints clean force

help:  ## Say what can be made
	@echo 'make TARGET [VARIABLE=value ...]'; echo
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/  \1|\2/p' Makefile | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'
	@echo
	@echo 'make run DATA_DIR=/path/to/videos trains and evaluates on your own videos instead of the demo. It also takes'
	@echo '  SAVE_DIR=results PRESET=small|full EPOCHS= BATCH_SIZE= LEARNING_RATE= MAX_VIDEOS_PER_CLASS= LAYOUT= SEED='
	@echo '  RUN_NAME=  name of the executed notebook in papermill_runs/ (otherwise from the data, the preset and the time)'
	@echo 'make bench takes DATA_DIR=, VIDEO= (a talking face), CHECKPOINT=, ONLY=preparation,windows,training,busy,rate,scoring,stride,desk,growth, LONGEST= seconds'
	@echo 'make rehearsal takes REHEARSAL_DIR=  where the sets are made (2 GB, otherwise in the cache folder of the user), OUT=nbs/benchmarks'
	@echo 'TORCH_BACKEND=cpu|cu130|...  which build of torch to install (otherwise cpu where no NVIDIA card is seen and it can be had)'
	@echo 'PYTHON=python3.11  the interpreter for a new .venv;  TEST_WORKERS=3  tests that run at once (some of them wait: one more than cores)'

# ---------------------------------------------------------------- installing

# A .venv that was moved here with its folder holds the old paths: make it anew.
ifneq ($(wildcard $(READY)),)
ifneq ($(shell cat $(READY)),$(CURDIR))
MOVED := force
endif
endif

$(PY): $(MOVED)
	@if [ -n "$$PYTHON" ]; then set -- "$$PYTHON"; else set -- python3.12 python3.11 python3.10 python3; fi; \
	found= without= seen=; \
	for candidate do \
	  version=$$("$$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
	  case $$version in \
	    3.10|3.11|3.12) ;; \
	    *) seen="$$seen $$candidate (Python $$version)"; continue;; \
	  esac; \
	  if "$$candidate" -c 'import ensurepip, venv' 2>/dev/null; then found=$$candidate; break; fi; \
	  without=$${without:-$$version}; \
	done; \
	if [ -n "$$found" ]; then \
	  echo "Making $(VENV) with $$found ($$("$$found" -V))"; exec "$$found" -m venv --clear $(VENV); \
	elif [ -n "$$without" ]; then \
	  echo "Python $$without is here, but its modules venv and ensurepip are missing." >&2; \
	  echo "Debian and Ubuntu: apt install python$$without-venv (or python3-venv). Then say make again." >&2; \
	else \
	  echo "No Python 3.10, 3.11 or 3.12 runs here; looked for: $$*.$${seen:+ Found only:$$seen.}" >&2; \
	  echo "Debian and Ubuntu: apt install python3 python3-venv; macOS: brew install python@3.12." >&2; \
	  echo "One that lies elsewhere: make PYTHON=/path/to/python3.12 ..." >&2; \
	fi; exit 1

# uv does not read pip's configuration: hand it the same registry and certificates, unless it was told its own. Additional
# registries stay with pip, for uv takes a version from the first that has it, whether its files suit this machine or not.
define PIP_SETTINGS_FOR_UV
import ast, os, shlex, subprocess, sys
lines = subprocess.run([sys.executable, '-m', 'pip', 'config', 'list'], capture_output=True, text=True).stdout.splitlines()
pip = {}
for level in 'global.', 'install.', ':env:.':  # the later one wins, as in pip
    for key, _, value in (line.partition('=') for line in lines if line.startswith(level)):
        pip[key[len(level):]] = ast.literal_eval(value)
names = {'index-url': 'UV_DEFAULT_INDEX', 'trusted-host': 'UV_INSECURE_HOST', 'cert': 'SSL_CERT_FILE'}
print(*(f'export {name}={shlex.quote(" ".join(pip[key].split()))};' for key, name in names.items()
        if key in pip and name not in os.environ))
endef
export PIP_SETTINGS_FOR_UV

# Without an NVIDIA card 3 GB of CUDA libraries are for nothing. Says `cpu` if the builds for the CPU can be had of exactly the
# versions that are pinned (torch and torchvision of different builds do not work together); says nothing otherwise.
define TORCH_FOR_THE_CPU
import glob, os, re, shutil, sys, urllib.request
if sys.platform != 'linux' or glob.glob('/dev/nvidia*') or shutil.which('nvidia-smi'):
    sys.exit()
index = os.environ.get('TORCH_CPU_INDEX', 'https://download.pytorch.org/whl/cpu')
pins = dict(re.findall(r'^(torch|torchvision|torchaudio)==(\S+)', open('constraints.txt').read(), re.M))
python = 'cp%d%d-' % sys.version_info[:2]
def has(name, version):
    page = urllib.request.urlopen(f'{index}/{name}/', timeout=5).read().decode()
    return re.search(re.escape(f'{name}-{version}') + r'(%2B|\+)cpu-' + python + r'[^"]*' + os.uname().machine, page)
try:
    print('cpu' if len(pins) == 3 and all(has(*pin) for pin in pins.items()) else '')
except OSError:
    pass
endef
export TORCH_FOR_THE_CPU

$(READY): settings.ini setup.py constraints.txt $(MOVED) | $(PY)
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt uv \
	  || echo 'uv could not be installed: going on with pip, which takes longer'
	@eval "$$($(PY) -c "$$PIP_SETTINGS_FOR_UV")"; \
	with_uv() { $(PY) -m uv pip install --compile-bytecode --python $(PY) -c constraints.txt "$$@" -e '.[dev]'; }; \
	backend=$${TORCH_BACKEND-$$($(PY) -c "$$TORCH_FOR_THE_CPU")}; \
	{ $(PY) -m uv --version >/dev/null 2>&1 && { \
	    { [ -n "$$backend" ] && echo "Installing torch for: $$backend" && with_uv --torch-backend "$$backend"; } || with_uv; }; } \
	|| { echo 'Installing with pip'; \
	     $(PY) -m pip install --disable-pip-version-check --use-pep517 -c constraints.txt -e '.[dev]'; }
	@printf '%s\n' "$(CURDIR)" > $@

install: $(READY)  ## Make .venv and install the pinned packages into it (the others do it by themselves)
	@echo "$(VENV) is ready: $$($(PY) -V)"

# ---------------------------------------------------------------- the main jobs

check-data-dir:  # before minutes of installing
	@data=$$DATA_DIR; case $$data in '~/'*) data=$$HOME/$${data#'~/'};; esac; \
	[ -z "$$data" ] || [ -d "$$data" ] || { echo "DATA_DIR: there is no folder $$data" >&2; exit 1; }

run: check-data-dir $(READY)  ## Train on authentic clips, evaluate, draw: nbs/run.ipynb by papermill, on demo data or on DATA_DIR
	@absolute() { $(PY) -c 'import os, sys; print(os.path.abspath(os.path.expanduser(sys.argv[1])))' "$$1"; }; \
	set --; name=demo save=$$(absolute "$${SAVE_DIR:-results}"); \
	if [ -n "$$DATA_DIR" ]; then \
	  data=$$(absolute "$$DATA_DIR"); name=$$(basename "$$data"); set -- "$$@" -r data_dir "$$data"; \
	fi; \
	[ -z "$$SAVE_DIR" ]             || set -- "$$@" -r save_dir "$$save"; \
	[ -z "$$PRESET" ]               || set -- "$$@" -r preset "$$PRESET"; \
	[ -z "$$EPOCHS" ]               || set -- "$$@" -p epochs "$$EPOCHS"; \
	[ -z "$$BATCH_SIZE" ]           || set -- "$$@" -p batch_size "$$BATCH_SIZE"; \
	[ -z "$$LEARNING_RATE" ]        || set -- "$$@" -p learning_rate "$$LEARNING_RATE"; \
	[ -z "$$MAX_VIDEOS_PER_CLASS" ] || set -- "$$@" -p max_videos_per_class "$$MAX_VIDEOS_PER_CLASS"; \
	[ -z "$$LAYOUT" ]               || set -- "$$@" -r layout "$$LAYOUT"; \
	[ -z "$$SEED" ]                 || set -- "$$@" -p seed "$$SEED"; \
	executed=papermill_runs/$${RUN_NAME:-run-$$name$${PRESET:+-$$PRESET}-$$(date +%Y%m%d-%H%M%S)}.ipynb; \
	mkdir -p papermill_runs; \
	$(PY) -m papermill nbs/run.ipynb "$$executed" --log-output --no-progress-bar "$$@" \
	|| { echo "The run stopped; the notebook as far as it got: $$executed" >&2; exit 1; }; \
	$(PY) -c 'from avfake.cli import main; main()' summary --save_dir "$$save" && echo "The executed notebook: $$executed"

bench: check-data-dir $(READY)  ## Measure speed and memory into nbs/benchmarks/ (half an hour; ONLY=desk takes a minute)
	@absolute() { $(PY) -c 'import os, sys; print(os.path.abspath(os.path.expanduser(sys.argv[1])))' "$$1"; }; \
	set -- -p run True; \
	[ -z "$$DATA_DIR" ]   || set -- "$$@" -r data_dir "$$(absolute "$$DATA_DIR")"; \
	[ -z "$$VIDEO" ]      || set -- "$$@" -r video "$$(absolute "$$VIDEO")"; \
	[ -z "$$CHECKPOINT" ] || set -- "$$@" -r checkpoint "$$(absolute "$$CHECKPOINT")"; \
	[ -z "$$ONLY" ]       || set -- "$$@" -r only "$$ONLY"; \
	[ -z "$$LONGEST" ]    || set -- "$$@" -p longest "$$LONGEST"; \
	mkdir -p papermill_runs; \
	$(PY) -m papermill nbs/benchmarks.ipynb papermill_runs/run-benchmarks.ipynb --cwd nbs --log-output --no-progress-bar "$$@" \
	&& echo "The figures: nbs/benchmarks/; the executed notebook: papermill_runs/run-benchmarks.ipynb"

# What a machine that has torch may lack, for Python 3.12 on Linux.
GPU_PACKAGES := av pydantic pydantic-core annotated-types typing-inspection ai-edge-litert mambapy seaborn
GPU_PLATFORM := --python-version 3.12 --implementation cp $(foreach n,2_28 2_27 2_17,--platform manylinux_$(n)_x86_64) --platform manylinux2014_x86_64

gpu-pack: check-data-dir $(READY)  ## Pack for `make gpu` elsewhere: clips (DATA_DIR=) into gpu_pack/, packages into gpu_site/
	@absolute() { $(PY) -c 'import os, sys; print(os.path.abspath(os.path.expanduser(sys.argv[1])))' "$$1"; }; \
	data=; [ -z "$$DATA_DIR" ] || data=$$(absolute "$$DATA_DIR"); $(PY) -m avfake.pack "$$data" gpu_pack
	@rm -rf gpu_site && mkdir gpu_site && $(PY) -m pip install -q --no-deps --no-compile --only-binary=:all: $(GPU_PLATFORM) \
	  -c constraints.txt --target gpu_site/packages $(GPU_PACKAGES)
	@cd gpu_site && rm -rf packages/ai_edge_litert/tools packages/ai_edge_litert/vendors packages/ai_edge_litert/*WebGpu* \
	&& tar -cJf packages.tar.xz -C packages . && rm -rf packages && du -sm ../gpu_pack ../gpu_site

detector: check-data-dir $(READY)  ## Make the detector of the package anew from the data sets in DATA_DIR=; goes on where it stopped
	@$(PY) -m avfake.packaged make "$$DATA_DIR"

gpu-worlds: $(READY)  ## Pack the data sets of DATA_DIR= for python -m avfake.gpu_worlds elsewhere, into gpu_worlds_pack/
	@$(PY) -m avfake.gpu_worlds pack "$$DATA_DIR" gpu_worlds_pack --per-identity 48
	@$(PY) -c 'from avfake.whisper import save_first_layers; save_first_layers("gpu_worlds_pack/whisper")'

gpu:  ## Measure this machine's GPU in 8 minutes into OUT=nbs/benchmarks/; needs gpu_pack/ and a python3 with torch, or .venv
	@python=$$([ -x $(PY) ] && echo $(PY) || echo "$${PYTHON:-python3}"); \
	if [ -f gpu_site/packages.tar.xz ] && [ ! -x $(PY) ]; then \
	  mkdir -p gpu_site/packages && tar -xJf gpu_site/packages.tar.xz -C gpu_site/packages; \
	  export PYTHONPATH="$$PWD/gpu_site/packages:$$PWD"; \
	fi; \
	"$$python" -m avfake.gpu measure gpu_pack "$${OUT:-nbs/benchmarks}" --seconds 450

rehearsal: $(READY)  ## Go through all stages at the size of FakeAVCeleb and LAV-DF, on made clips (1-2 hours); goes on where it stopped
	@$(PY) -m avfake.rehearsal run --folder "$$REHEARSAL_DIR" --out "$${OUT:-nbs/benchmarks}"

test: $(READY)  ## Run every notebook and the tests in tests/, each a counted pytest case
	@$(PY) -m pytest tests -n $(TEST_WORKERS) --dist worksteal -rs --durations=5 $(ARGS)

RELIABILITY := $(addprefix tests/test_,hostile.py kills.py processes.py fuzz.py ray.py safety.py install.py end_to_end.py::test_reproduce \
  notebooks.py::test_slow_cells labels.py layouts.py coverage.py faces.py few_clips.py told.py)
test-reliability: $(READY)  ## Hostile files, kills, fuzzing, Ray, installation, situations that users bring: all, with counts (half an hour)
	@AVFAKE_RELIABILITY=full $(PY) -m pytest $(RELIABILITY) -n $(TEST_WORKERS) --dist worksteal -rs --durations=5 $(ARGS)

lab: $(READY)  ## Open the notebooks in JupyterLab
	@$(PY) -m jupyterlab $(ARGS)

app: $(READY)  ## Serve a page to drop videos on, for this machine alone (ARGS= as avfake app --help says)
	@$(VENV)/bin/avfake app $(ARGS)

docs: $(READY)  ## Build the site of the documentation into _docs/ (search, tutorials, API, model card, results)
	@eval "$$($(PY) -c "$$PIP_SETTINGS_FOR_UV")"; $(PY) -c 'import mkdocs, material, latex2mathml' 2>/dev/null \
	|| $(PY) -m uv pip install --quiet --python $(PY) -c constraints.txt -e '.[docs]' \
	|| $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@$(PY) tests/docs.py

# ---------------------------------------------------------------- for developers

export: $(READY)  ## Write avfake/*.py from the notebooks
	@$(PY) -c 'from nbdev.doclinks import nbdev_export; nbdev_export()'

clean-notebooks: $(READY)  ## Strip from the notebooks what does not belong in git
	@$(PY) -c 'from nbdev.clean import nbdev_clean; nbdev_clean()'

readme: $(READY)  ## Write README.md from nbs/index.ipynb
	@$(PY) tests/readme.py

format: $(READY)  ## Format notebooks and tests with ruff, and say what it finds in them
	@$(VENV)/bin/ruff format --quiet nbs tests setup.py
	@$(VENV)/bin/ruff check --fix nbs tests setup.py

prepare: format export clean-notebooks readme  ## What to do before a commit: format, export, clean-notebooks, readme

constraints: $(READY)  ## Pin the newest packages that Python 3.10 to 3.12 accept, into constraints.txt
	@echo uv | $(PY) -m uv pip compile --quiet --upgrade --universal --python-version 3.10 --no-annotate --no-header \
	  --extra dev --extra docs -o constraints.txt setup.py -

clean:  ## Remove .venv and what building left behind; data, results and executed notebooks stay
	rm -rf $(VENV) build dist avfake.egg-info .pytest_cache
