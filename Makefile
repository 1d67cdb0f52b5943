# Everything from an empty machine with Python 3.11 to 3.13, git and make.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup demo check test crash lint audit lock peers clean

TOOLS := .tools
UV := $(or $(shell command -v uv 2>/dev/null),$(TOOLS)/uv/bin/uv)
BIN := .venv/bin
PYTHONS := '>=3.11,<3.14'
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Two threads that wait for each other cost more than they bring, on small networks and busy machines.
export OMP_NUM_THREADS ?= 1
unexport VIRTUAL_ENV PYTHONPATH
# Without compiled modules, which images of containers often forbid, every process takes seconds longer to start.
unexport PYTHONDONTWRITEBYTECODE

help: ## what there is to make
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' $(MAKEFILE_LIST) | expand -t 14

setup: ## the two environments, from the locks
	@$(MAKE) --silent --no-print-directory -j2 .venv/.synced .venv-label-studio/label_studio.sqlite3

demo: setup ## two simulated rounds on real services; KEEP=1 leaves the services up
	@$(BIN)/python -m flows.demo

check: lint ## lint, types, imports, and every test without servers, browser or workspace: a minute
	@$(BIN)/python -m pytest --numprocesses 2 -m "not services"

# Each of the three has servers of its own, and waits for them much of its time, so that three fill two cores;
# tests/conftest.py says which tests stay together, and which come first.
test: ## every check and test
	@$(MAKE) --silent --no-print-directory -j2 lint .venv-label-studio/label_studio.sqlite3
	@$(BIN)/python -m pytest --numprocesses 3 --no-loadscope-reorder

crash: setup ## kill a round at every one of its steps and start again; `make test` takes the worst 25
	@DADC_CRASH=all $(BIN)/python -m pytest tests/flows/test_crashes.py

lint: .venv/.synced ## ruff, mypy, import-linter, deptry
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/deptry --no-ansi .

audit: .venv/.synced ## known vulnerabilities of the locked packages, by osv.dev
	@$(BIN)/pip-audit --vulnerability-service osv --disable-pip --require-hashes --requirement locks/dadc.txt \
		--progress-spinner off

lock: $(UV) ## write the locks again, with the newest versions that fit
	$(COMPILE) --upgrade pyproject.toml --group dev --group team --output-file locks/dadc.txt
	$(COMPILE) --upgrade locks/label-studio.in --output-file locks/label-studio.txt
	$(COMPILE) --upgrade --no-deps locks/peers.in --output-file locks/peers.txt
	echo uv | $(COMPILE) --upgrade - --output-file locks/uv.txt

# Their own pins of shared packages are old, so they come without them and run on those of .venv.
peers: setup ## other attack libraries into .peers, for benchmarks only
	@$(UV) pip install --quiet --python $(BIN)/python --target .peers --no-deps --require-hashes \
		--requirement locks/peers.txt

clean: ## remove the environments; campaigns and .demo stay
	rm -rf .venv .venv-label-studio .peers $(TOOLS)

# A stamp is written last, and says where: an environment without one was cut short, one of another place was moved
# here, with paths of there in it, and both are made again.
MOVED := $(shell for each in .venv .venv-label-studio; do [ ! -s $$each/.synced ] || \
	[ "$$(cat $$each/.synced)" = "$$(pwd -P)" ] || rm -f $$each/.synced $$each/bin/python; done)
.venv/.synced: locks/dadc.txt Makefile | $(UV)
	@echo "making .venv, with torch some gigabytes: this is the long step"
	@rm -f $@
	@test -x $(BIN)/python && $(BIN)/python -c pass 2>/dev/null || $(UV) venv --quiet --clear --python $(PYTHONS) .venv
	@$(UV) pip sync --quiet --python $(BIN)/python --require-hashes locks/dadc.txt
	@printf '%s\n' "$$LAUNCHER" > $(BIN)/dadc && chmod +x $(BIN)/dadc
	@pwd -P > $@

.venv-label-studio/.synced: locks/label-studio.txt Makefile | $(UV)
	@echo "making .venv-label-studio"
	@rm -f $@
	@test -x .venv-label-studio/bin/python && .venv-label-studio/bin/python -c pass 2>/dev/null || \
		$(UV) venv --quiet --clear --python $(PYTHONS) .venv-label-studio
	@$(UV) pip sync --quiet --python .venv-label-studio/bin/python --require-hashes locks/label-studio.txt
	@pwd -P > $@

# Label Studio's empty database, which every campaign starts from: its migrations take half a minute.
.venv-label-studio/label_studio.sqlite3: locks/label-studio.txt | .venv-label-studio/.synced
	@echo "laying out Label Studio's database"
	@rm -rf $(@D)/.new && mkdir $(@D)/.new
	@env -i PATH="$$PATH" HOME="$$HOME" LABEL_STUDIO_BASE_DATA_DIR="$(CURDIR)/$(@D)/.new" SENTRY_DSN= FRONTEND_SENTRY_DSN= \
		LABEL_STUDIO_LATEST_VERSION_CHECK=false LABEL_STUDIO_COLLECT_ANALYTICS=false \
		$(@D)/bin/label-studio version >$(@D)/.new/log 2>&1 || { tail -n 5 $(@D)/.new/log >&2; exit 1; }
	@test -s $(@D)/.new/$(@F) && mv $(@D)/.new/$(@F) $@ && rm -rf $(@D)/.new

# Where there is no uv: its wheel, by hash, into a folder of the checkout. Debian's Python may lack venv or pip.
$(TOOLS)/uv/bin/uv: locks/uv.txt
	@echo "installing uv into $(TOOLS)"
	@rm -rf $(TOOLS)/uv
	@python3 -m venv $(TOOLS)/uv 2>/dev/null && \
		$(TOOLS)/uv/bin/python -m pip install --quiet --require-hashes --requirement locks/uv.txt || \
		{ rm -rf $(TOOLS)/uv; python3 -m pip install --quiet --require-hashes --requirement locks/uv.txt \
			--target $(TOOLS)/uv; } || \
		{ rm -rf $(TOOLS)/uv; echo "uv was wanted, and python3 has neither venv nor pip to install it with;" \
			"install uv, or Debian's python3-venv" >&2; exit 1; }
	@touch $@

# The command runs the code of the workspace one stands in, so nothing is installed but this.
define LAUNCHER
#!/bin/sh
# dadc: run the command of the checkout one stands in; elsewhere that of this one, which has help and an error for it.
here=$$(cd "$$(dirname "$$0")" && pwd)
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_PREFIX  # as in a hook: they name another checkout than one stands in
root=$$(git rev-parse --show-toplevel 2>/dev/null)
[ -f "$$root/flows/cli.py" ] || root=$${here%/*/*}
export DADC_FROM="$$PWD"  # from where the paths of a command are meant
cd "$$root" && PATH=$$here:$$PATH exec "$$here/python" -m flows.cli "$$@"
endef
export LAUNCHER
