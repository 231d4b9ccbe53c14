# The command line in an image; records and results go to the volume.
#
#   docker build --tag perfusio-jax .
#   docker run --rm --volume perfusio:/work perfusio-jax demo

FROM python:3.12-slim AS build
WORKDIR /source
RUN pip install --no-cache-dir build hatchling
COPY pyproject.toml README.md LICENSE ./
COPY examples examples
COPY src src
RUN python -m build --wheel --no-isolation

FROM python:3.12-slim
COPY --from=build /source/dist /wheels
RUN pip install --no-cache-dir "$(ls /wheels/*.whl)[postgres,notify,dash]" && rm -r /wheels
RUN useradd --create-home --uid 1000 perfusio && install --directory --owner=perfusio /work
USER perfusio
WORKDIR /work
VOLUME /work
# What is compiled is kept in the volume: a container that is gone takes its home along.
ENV OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 XDG_CACHE_HOME=/work/.cache
ENTRYPOINT ["perfusio-jax"]
CMD ["--help"]
