# For machines that MXNet has no wheel for; it has one for Linux on x86-64 and aarch64.
#   docker build --tag d2l_autorec .
#   docker run --rm d2l_autorec                                    # trains
#   docker run --rm --publish 127.0.0.1:8888:8888 d2l_autorec \
#       .venv/bin/jupyter lab --ip 0.0.0.0 --allow-root notebooks  # opens the notebooks
FROM python:3.14-slim
# What MXNet's wheel takes from the system: OpenMP.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /d2l_autorec
COPY . .
RUN make .venv/installed-notebooks
CMD ["make", "train"]
