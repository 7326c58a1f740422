# SPDX-License-Identifier: Apache-2.0
# Thin on purpose: the work is in tools/. `make help` lists the targets.

SHELL := /bin/bash
export PYTHONS HISTORIES SEED FUZZ_SECONDS PYTEST_ARGS PYTEST_JOBS BENCH_ARGS BENCH_LIMIT
export SPEC_ARGS SPEC_JOBS STDLIB_MODULES STDLIB_CARRIERS ASYNCIO_MODULES SOAK_SECONDS SOAK_CARRIERS

.PHONY: help demo examples test test-sid test-stdlib test-drivers test-asyncio soak soak-asan asan tsan \
	fuzz sim lint bench format clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | sort | expand -t 16

demo: ## build, serve both example programs, drive each with ab, print a table
	@tools/demo

examples: ## a Flask and a Django program in each carrier, beside services that it starts
	@tools/examples

.PHONY: examples-asgi
examples-asgi: ## Starlette, FastAPI, Channels, Quart, and the chat page in Chromium, in each carrier
	@tools/examples-asgi

test: ## C unit tests, then pytest on every interpreter (PYTHONS="debian 3.12" chooses)
	@tools/test

test-sid: ## `make test` on Python 3.14, in a root of Debian sid that debootstrap makes
	@tools/test-sid

test-stdlib: ## the standard library's own tests, run inside requests
	@tools/test-stdlib

test-drivers: ## all kinds of waits, drivers and HTTP clients in requests, beside servers that it starts
	@tools/test-drivers

soak: ## all kinds of waits at once for SOAK_SECONDS (600) in each carrier
	@tools/soak

soak-asan: ## the same under AddressSanitizer and UBSan
	@tools/soak --sanitize address

.PHONY: soak-asgi
soak-asgi: ## HTTP, streams, events and WebSockets at once for SOAK_SECONDS (300), with cuts
	@tools/soak --asgi

test-asyncio: ## CPython's own asyncio tests on pelton.Loop, beside the standard library's loop
	@tools/test-asyncio

.PHONY: spec
spec: ## Autobahn's WebSocket suite against the server
	@tools/spec

asan: ## unit tests, simulation and pytest under AddressSanitizer and UBSan
	@tools/test --sanitize address

tsan: ## unit tests and simulation under ThreadSanitizer
	@tools/test --sanitize thread

fuzz: ## every fuzzer for FUZZ_SECONDS (60) seconds
	@tools/fuzz

sim: ## the simulation: HISTORIES (1000000) connection histories from SEED
	@tools/sim

lint: ## layers, licence lines, file lengths, clang-format, ruff
	@tools/lint

bench: ## instructions and CPU time per request, beside other servers
	@tools/bench

format: ## apply clang-format and ruff
	@tools/lint --fix

clean: ## remove builds and virtual environments
	rm -rf build .venv-* .pytest_cache .ruff_cache bench/out fuzz/new
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
