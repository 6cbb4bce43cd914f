# Thin: sets up .venv, then calls `python -m book …`. `make` alone lists the targets.

PYTHON ?= python3
PORT ?=
export PORT
ONLY ?=
CHAPTER ?=

# The Python that sets up: the one asked for; if none was, the one that .venv already has, if it still starts.
SETUP = $(if $(filter file default undefined,$(origin PYTHON)),$(shell .venv/bin/python -c '' 2>/dev/null && echo .venv/bin/python || echo $(PYTHON)),$(PYTHON))
BOOK = .venv/bin/python -m book
PORT_OPTION = $(if $(PORT),--port $(PORT))
ONLY_OPTION = $(if $(ONLY),--only $(ONLY))

.PHONY: help setup serve test lab write site bench new run clean

help:
	@echo "make serve                    set up, execute, build and serve the book at http://127.0.0.1:8000/"
	@echo "make serve ONLY=foundations   the same for one part or chapter and what it needs"
	@echo "make test                     everything that CI runs"
	@echo "make lab                      JupyterLab; a double click opens a chapter or an exercise as a notebook"
	@echo "make write                    watch: execute and rebuild what you save, reload the open page"
	@echo "make site                     execute and build, without serving"
	@echo "make run CHAPTER=part/slug    execute one chapter, its exercises and solutions, and what they need"
	@echo "make new CHAPTER=part/slug    a new chapter from the template"
	@echo "make bench                    measure execution, builds and pages"
	@echo "make clean                    remove everything that was made: _build, .venv, node_modules"
	@echo ""
	@echo "Options: PYTHON=python3.12 (3.11 to 3.13)   PORT=8001   ONLY=part or part/slug"

setup:
	@$(SETUP) -m book setup

serve: setup
	@$(BOOK) serve $(ONLY_OPTION) $(PORT_OPTION)

test: setup
	@$(BOOK) test

lab: setup
	@$(BOOK) lab

write: setup
	@$(BOOK) write $(ONLY_OPTION) $(PORT_OPTION)

site: setup
	@$(BOOK) site $(ONLY_OPTION)

bench: setup
	@$(BOOK) bench

new run: setup
	@$(if $(CHAPTER),$(BOOK) $@ $(CHAPTER),echo 'Say which: make $@ CHAPTER=part/slug' >&2; exit 2)

clean:
	rm -rf _build .venv node_modules
