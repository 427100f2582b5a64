# make demo    the shop behind the gateway, on routes.toml, ready to be flipped
# make test    everything there is to test, on real PHP-FPM, Redis, MariaDB, WordPress
# make bench   nginx and the gateway side by side: on the same PHP-FPM, and with checks on the same Redis; a scrape of
#              1,000 routes

.PHONY: demo test bench install-test-deps nextest

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

# Doc tests first: they are the few that nextest does not run, and its summary is to stand last.
test: install-test-deps nextest
	cargo test --doc
	cargo nextest run

bench:
	tests/install.sh bench
	bench/compare/run.py
	bench/checks/run.py
	bench/scrape/run.py

install-test-deps:
	tests/install.sh tests

nextest:
	@cargo nextest --version >/dev/null 2>&1 || cargo install cargo-nextest --locked
