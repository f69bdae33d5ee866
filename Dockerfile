# The relay, the console and the other commands of `reverb`, in a container:
#
#   docker build --tag python-reverb .
#   docker run --rm --env-file .env python-reverb relay --all --to redis://redis:6379/0
#   docker run --rm --env-file .env --publish 127.0.0.1:8090:8090 python-reverb \
#       console --host 0.0.0.0 --port 8090 --expose --no-open

FROM python:3.13.9-slim-bookworm AS build
WORKDIR /source
RUN python -m venv /venv
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN /venv/bin/pip install --no-cache-dir --disable-pip-version-check ".[all]"

FROM python:3.13.9-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home reverb
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /tmp
# `reverb` is process 1 and gets SIGTERM itself; it ends cleanly, within 10 seconds.
ENTRYPOINT ["reverb"]
CMD ["--help"]
