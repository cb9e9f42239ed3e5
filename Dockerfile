FROM python:3.11.15-slim-bookworm AS python

FROM python AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# Before the sources, so that a change of theirs does not install everything anew.
COPY requirements/base.txt requirements/
RUN python -m venv --without-pip /opt/telltale \
    && pip --python /opt/telltale/bin/python install --only-binary :all: --require-hashes -r requirements/base.txt
COPY pyproject.toml README.md telltale.py ./
COPY alerts alerts/
COPY dashboards dashboards/
COPY detectors detectors/
COPY monitor monitor/
RUN pip --python /opt/telltale/bin/python install --no-deps --no-build-isolation . \
    && pip --python /opt/telltale/bin/python uninstall --yes setuptools wheel

FROM python
LABEL org.opencontainers.image.title="Telltale" \
      org.opencontainers.image.description="Watches models in production" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN pip uninstall --yes --root-user-action ignore setuptools wheel pip \
    && rm -r /usr/local/lib/python3.11/ensurepip \
    && groupadd --gid 10001 telltale \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin telltale \
    && install -d -o telltale -g telltale /dashboards /var/lib/telltale
COPY --from=builder /opt/telltale /opt/telltale
ENV PATH=/opt/telltale/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /var/lib/telltale
# By number: some orchestrators cannot tell that a name is not root's.
USER 10001:10001
EXPOSE 8300
ENTRYPOINT ["telltale"]
CMD ["--help"]
