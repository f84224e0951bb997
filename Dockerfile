# Production image: locked packages without the development servers, an ordinary user, no secrets.

FROM python:3.11-slim AS packages
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements/base.lock /tmp/base.lock
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-input --require-hashes -r /tmp/base.lock

FROM python:3.11-slim
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 ENVIRONMENT=production
RUN useradd --system --uid 10001 --create-home --home-dir /home/recovery --shell /usr/sbin/nologin recovery
COPY --from=packages /opt/venv /opt/venv
WORKDIR /app
COPY . .
# The file names get hashes here. The values below live for this one command only: nothing is contacted with them,
# and without real ones the image does not start.
RUN DATABASE_URL=postgresql://build@localhost/build \
    REDIS_URL=redis://localhost/0 \
    SECRET_KEY=only-for-collectstatic \
    FIELD_ENCRYPTION_KEYS="$(python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())')" \
    ALLOWED_HOSTS=localhost \
    PUBLIC_URL=https://localhost \
    EMAIL_URL=dummymail:// \
    DEFAULT_FROM_EMAIL=build@localhost \
    python manage.py collectstatic --no-input --verbosity 0
USER recovery
EXPOSE 8000
# Keep workers * (WEB_THREADS + 1) below PostgreSQL's max_connections (docs/adr/0014-web-server.md).
CMD ["granian", "--interface", "asgi", "--host", "0.0.0.0", "--port", "8000", "--workers", "2", "--no-ws", \
     "--http1-header-read-timeout", "10000", "--workers-kill-timeout", "30", "recovery_site.web:application"]
