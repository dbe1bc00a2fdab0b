# Each target first installs the system packages it needs and this machine lacks (.ci/deps says which), and prints how long it took.
# Rust itself is the one thing you bring: https://rustup.rs

export CARGO_TERM_PROGRESS_WHEN ?= never
DEPS := sh .ci/deps

# $(call timed,name,command): runs the command, prints its duration, keeps its exit code.
define timed
@started=$$(date +%s); echo "==> $(1)"; status=0; { $(2); } || status=$$?; \
echo "==> $(1): $$(( $$(date +%s) - started )) s, exit code $$status"; exit $$status
endef

.PHONY: help demo test deploy-test soak bench instructions check docs deny fuzz image release deps deps-test components

help:
	@echo "make demo    a signed-in page, a streaming agent and the gateway between them, until Ctrl-C"
	@echo "make test    every test: cases, properties, end to end with third-party verifiers"
	@echo "make deploy-test   what deploy/ ships, tried for real: every script of deploy/tests, those that make test has no time for too"
	@echo "make soak    faults and mixed traffic for SOAK_MINUTES (default 10) and eight more, with a table at the end"
	@echo "make check   formatting, clippy and documentation, warnings are errors; licences, banned crates, and advisories where they can be had"
	@echo "make docs    the manual as a static book, under target/book"
	@echo "make bench   CPU per request beside HAProxy, nginx and Envoy in one run, and criterion figures; BENCH='--rounds 2' and more"
	@echo "make instructions   instructions of parse, decide, sign and record, counted by callgrind and compared with the last run"
	@echo "make fuzz    properties and fuzz targets with FUZZ_CASES (default 200000) inputs each"
	@echo "make deny    advisories, licences and banned crates (compiles cargo-deny the first time); fails where there are no advisories to be had"
	@echo "make image   the container image, with docker, podman or buildah; IMAGE=name:tag"
	@echo "make release tarball, SBOM and checksums in target/dist"

deps:
	$(call timed,deps,$(DEPS) build)

deps-test:
	$(call timed,deps,$(DEPS) test)

components:
	@cargo fmt --version >/dev/null 2>&1 || { echo "installing rustfmt"; rustup component add rustfmt; }
	@cargo clippy --version >/dev/null 2>&1 || { echo "installing clippy"; rustup component add clippy; }

demo: deps
	cargo run --locked -- demo

test: deps-test
	$(call timed,test,cargo test --locked --no-fail-fast)

deploy-test: deps-test
	$(call timed,release build,cargo build --release --locked)
	@for script in deploy/tests/*.sh; do [ "$$script" = deploy/tests/lib.sh ] || \
	    { echo "==> $$script"; DOORWARD_BINARY="$(CURDIR)/target/release/doorward" bash "$$script" || exit; }; done

SOAK_MINUTES ?= 10
soak: deps-test
	$(call timed,release build,cargo build --release --locked)
	$(call timed,soak,SOAK_MINUTES=$(SOAK_MINUTES) DOORWARD_BINARY="$(CURDIR)/target/release/doorward" cargo test --locked --test soak)

BENCH ?=
bench: deps
	$(call timed,peers,$(DEPS) bench && sh tests/ingress/install.sh)
	$(call timed,beside peers,cargo bench --locked --bench peers -- --envoy "$$(ls target/ingress/venv/lib/python3*/site-packages/envoy/_bin/envoy)" $(BENCH))
	$(call timed,criterion,cargo bench --locked --bench admission)

instructions: deps
	$(call timed,deps,$(DEPS) instructions)
	@tools=$$(sh .ci/tool gungraun-runner) || exit; PATH="$$tools:$$PATH" cargo bench --locked --bench instructions

check: deps components
	$(call timed,fmt,cargo fmt --all --check)
	$(call timed,clippy,cargo clippy --locked --all-targets -- -D warnings)
	$(call timed,doc,RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items)
	$(call timed,supply chain,sh .ci/supply)

docs:
	$(call timed,deps,$(DEPS) docs)
	$(call timed,docs,sh .ci/book/build)

FUZZ_CASES ?= 200000
fuzz: deps
	$(call timed,properties,PROPTEST_CASES=$(FUZZ_CASES) cargo test --locked --test spec -- property::)
	$(call timed,fuzz targets,PROPTEST_CASES=$(FUZZ_CASES) cargo test --locked --test spec -- fuzz::)

deny: deps
	$(call timed,deny,sh .ci/supply required)

IMAGE ?=
image:
	$(call timed,image,sh deploy/image.sh $(IMAGE))

release: deps
	$(call timed,release,sh deploy/release.sh)
