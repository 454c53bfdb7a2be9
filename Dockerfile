# Cedula under gunicorn: no compiler, no root, nothing to write but memory (/dev/shm).
#   make image && docker run --read-only --cap-drop ALL -p 8000:8000 --env-file .env cedula

# The digest is what is built on, the tag is for people; deploy/pin-images renews both.
FROM python:3.13.16-slim-bookworm@sha256:a1165e272e578941b84abc79e4ab38a0305cd12803a5c4247979ac7655f4d641 AS base


FROM base AS build
WORKDIR /srv
RUN python -m venv /opt/cedula
# With traces (docs/traces.md): --build-arg LOCK=requirements-otel.txt
ARG LOCK=requirements.txt
COPY requirements.txt requirements-otel.txt ./
# A lock is installed, not resolved: --no-deps, then `pip check`.
RUN /opt/cedula/bin/pip install --no-cache-dir --no-compile --disable-pip-version-check --no-deps \
    --require-hashes --only-binary :all: -r "$LOCK" && /opt/cedula/bin/pip check
COPY LICENSE .
COPY app app
COPY wsgi.py gunicorn.conf.py gunicorn_worker.py ./
# The image never changes, so byte code need not be compared with its source.
RUN /opt/cedula/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/cedula/lib /srv


FROM base
COPY --from=build /opt/cedula /opt/cedula
COPY --from=build /srv /srv
WORKDIR /srv
ENV PATH=/opt/cedula/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:8000/healthz', timeout=4)"]
# deploy/build-image adds version, revision and created.
LABEL org.opencontainers.image.title="Cedula" \
    org.opencontainers.image.description="Registers people by e-mail address for other services" \
    org.opencontainers.image.licenses="Apache-2.0"
CMD ["gunicorn", "--config", "gunicorn.conf.py", "wsgi:app"]
