"""The child process of benchmarks.gpu. It times the contenders, as `python -m gradwire.cli.bench.engine` does."""

from benchmarks.gpu import use_bench_without_client

if __name__ == "__main__":
    use_bench_without_client()
    from gradwire.cli.bench import engine

    engine.main()
