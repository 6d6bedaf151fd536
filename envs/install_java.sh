#!/usr/bin/env bash
# Spark needs Java 17. Install it where this machine lets us, else say in one line what to install.
set -euo pipefail
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    echo "Java is missing: installing openjdk-17-jre-headless" >&2
    apt-get update -qq && apt-get install -qq -y openjdk-17-jre-headless >/dev/null
else
    echo "Java is missing: install Java 17 (Debian: openjdk-17-jre-headless; conda: openjdk=17) and run make again" >&2
    exit 1
fi
