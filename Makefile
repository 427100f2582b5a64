# make demo    the shop behind the gateway, on routes.toml, ready to be flipped
# make test    everything there is to test, on real PHP-FPM, Redis, MariaDB, WordPress
# make observe a Prometheus on the running demo; every query of the dashboard and the alerts asked of it
# make release the program guided by a profile of itself at work, in target/guided: about a sixth less CPU time a request
# make bench   that build, nginx and the least there can be side by side: on the same PHP-FPM, and with checks on the
#              same Redis; PHP beside the reader of its sessions; a scrape of 1,000 routes

.PHONY: demo observe test release bench install-test-deps nextest

# PHP never runs as root: started by root, the gateway lets it run as the owner of the application or, when
# that is root too, as www-data. What PHP writes to must be that user's.
demo:
	tests/install.sh demo
	@if [ "$$(id -u)" = 0 ]; then \
	  owner=$$(stat -c %u:%g examples/shop/legacy/public); \
	  case $$owner in 0:*) owner=www-data:www-data ;; esac; \
	  chown -R $$owner var/shop; \
	fi
	cargo run --profile demo --example shop -- run -c routes.toml

observe:
	tests/install.sh observe
	docs/observability/verify.py

# Doc tests first: they are the few that nextest does not run, and its summary is to stand last.
test: install-test-deps nextest
	cargo test --doc
	cargo nextest run

release:
	tests/install.sh release
	bench/release.py

bench: release
	bench/compare/run.py --gateway target/guided/*/release/examples/hello
	bench/checks/run.py --gateway target/guided/*/release/examples/hello
	bench/checks/reader.py --gateway target/guided/*/release/examples/hello --connections 2
	bench/scrape/run.py --gateway target/guided/*/release/examples/hello

install-test-deps:
	tests/install.sh tests

nextest:
	@cargo nextest --version >/dev/null 2>&1 || cargo install cargo-nextest --locked
