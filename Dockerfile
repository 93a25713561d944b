# The broker alone: Python, its own code and locked dependencies on an otherwise empty file system.
# No shell, no package manager, no user but its own.
#
#   docker build -t agent-token-broker .

ARG DEBIAN=debian:bookworm-slim

FROM ${DEBIAN} AS build
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends \
    ca-certificates gcc libc6-dev python3-dev python3-venv

WORKDIR /src
COPY requirements.lock requirements-compile.lock ./
# Each file is checked against its hash. Byte code is left to the broker's first start.
RUN python3 -m venv /usr/local/build \
  && python3 -m venv --without-pip /usr/local/broker \
  && /usr/local/build/bin/pip install -q --require-hashes --no-deps -r requirements-compile.lock \
  && /usr/local/build/bin/pip --python /usr/local/broker/bin/python install -q --no-compile --require-hashes --no-deps -r requirements.lock
COPY pyproject.toml README.md CHANGELOG.md LICENSE ./
COPY policies/catalogue policies/catalogue
COPY providers providers
COPY broker broker
# Compiled, what each request passes through takes less (docs/decisions/0016).
RUN HATCH_BUILD_HOOK_ENABLE_MYPYC=true /usr/local/build/bin/pip wheel -q --no-index --no-deps --no-build-isolation -w /wheel . \
  && /usr/local/build/bin/pip --python /usr/local/broker/bin/python install -q --no-compile --no-index --no-deps /wheel/*.whl \
  # Of AWS's services the broker calls these; boto3 brings the descriptions of all.
  && cd /usr/local/broker/lib/python3*/site-packages/botocore/data \
  && find . -mindepth 1 -maxdepth 1 -type d ! -name sts ! -name iam ! -name sso ! -name sso-oidc -exec rm -r {} +

# Debian's packages, unpacked; what scanners look for stays beside them.
WORKDIR /packages
RUN apt-get download -qq base-files ca-certificates libbz2-1.0 libc6 libcrypt1 libexpat1 libffi8 libgcc-s1 \
    liblzma5 libpython3.11-minimal libpython3.11-stdlib libsqlite3-0 libssl3 libstdc++6 libuuid1 netbase \
    python3.11-minimal tzdata zlib1g \
  && mkdir -p /rootfs/var/lib/dpkg/status.d \
  && for package in *.deb; do \
       dpkg-deb -x "$package" /rootfs; \
       dpkg-deb -f "$package" > "/rootfs/var/lib/dpkg/status.d/$(dpkg-deb -f "$package" Package)"; \
     done \
  && cp -a /etc/ssl/certs /rootfs/etc/ssl/ \
  && ln -s python3.11 /rootfs/usr/bin/python3 \
  && rm -rf /rootfs/usr/share/doc /rootfs/usr/share/man /rootfs/usr/share/locale /rootfs/usr/share/lintian \
  && echo 'broker:x:65532:65532::/var/lib/broker:/nonexistent' > /rootfs/etc/passwd \
  && echo 'broker:x:65532:' > /rootfs/etc/group \
  && install -d -o 65532 -g 65532 -m 0700 /rootfs/var/lib/broker \
  && install -d -m 1777 /rootfs/tmp \
  # Where volumes of docker-compose.yml are mounted: a new one takes its owner from here.
  && for name in agent broker keys openbao postgres upstream; do \
       install -D -d -o 65532 -g 65532 -m 0750 "/rootfs/files/$name"; \
     done \
  && mkdir -p /rootfs/usr/local && cp -a /usr/local/broker /rootfs/usr/local/

FROM scratch
COPY --from=build /rootfs /
ENV PATH=/usr/local/broker/bin HOME=/var/lib/broker BROKER_HOME=/var/lib/broker PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /var/lib/broker
VOLUME /var/lib/broker
EXPOSE 8700 8701
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8700/healthz', timeout=2)"]
ENTRYPOINT ["broker"]
CMD ["serve"]
