"""The modules that are mutated, and the tests that must notice it: pure code, and what unit tests hold."""

_ENGINE, _SDK, _SERVER, _WORKER = "engine/gradwire_engine", "client_sdk/gradwire", "server/gradwire_server", "worker"
_ENGINE_TESTS, _SDK_TESTS, _SERVER_TESTS = "tests/unit/engine", "tests/unit/client_sdk", "tests/unit/server"

MODULES: dict[str, list[str]] = {
    f"{_ENGINE}/losses.py": [
        f"{_ENGINE_TESTS}/test_losses_and_metrics.py",
        f"{_ENGINE_TESTS}/test_gradients.py",
    ],
    f"{_ENGINE}/metrics.py": [f"{_ENGINE_TESTS}/test_losses_and_metrics.py"],
    f"{_ENGINE}/training.py": [f"{_ENGINE_TESTS}/test_training.py"],
    f"{_ENGINE}/randomness.py": [f"{_ENGINE_TESTS}/test_spec.py", f"{_ENGINE_TESTS}/test_training.py"],
    f"{_ENGINE}/network.py": [f"{_ENGINE_TESTS}/test_training.py"],
    f"{_ENGINE}/layers.py": [f"{_ENGINE_TESTS}/test_gradients.py", f"{_ENGINE_TESTS}/test_chapter.py"],
    f"{_ENGINE}/module.py": [f"{_ENGINE_TESTS}/test_tracing.py", f"{_ENGINE_TESTS}/test_chapter.py"],
    f"{_ENGINE}/optim.py": [f"{_ENGINE_TESTS}/test_independent_results.py", f"{_ENGINE_TESTS}/test_chapter.py"],
    f"{_ENGINE}/spec/messages.py": [f"{_ENGINE_TESTS}/test_spec.py"],
    f"{_ENGINE}/spec/prepare.py": [f"{_ENGINE_TESTS}/test_spec.py", f"{_ENGINE_TESTS}/test_independent_results.py"],
    f"{_ENGINE}/spec/resolve.py": [f"{_ENGINE_TESTS}/test_spec.py"],
    f"{_ENGINE}/spec/summary.py": [f"{_ENGINE_TESTS}/test_spec.py"],
    f"{_ENGINE}/spec/tensors.py": [f"{_ENGINE_TESTS}/test_spec.py"],
    f"{_ENGINE}/spec/tracing.py": [f"{_ENGINE_TESTS}/test_tracing.py", f"{_ENGINE_TESTS}/test_spec.py"],
    f"{_ENGINE}/spec/validation.py": [f"{_ENGINE_TESTS}/test_spec.py"],
    f"{_WORKER}/gradwire_worker/checkpoint_policy.py": ["tests/unit/worker/test_worker.py"],
    f"{_WORKER}/gradwire_worker/messages.py": ["tests/unit/worker/test_worker.py"],
    f"{_WORKER}/gradwire_worker/outbox.py": ["tests/unit/worker/test_worker.py"],
    f"{_SERVER}/scheduling/policy.py": [f"{_SERVER_TESTS}/test_policy.py"],
    f"{_SERVER}/jobs/events.py": [f"{_SERVER_TESTS}/test_attempt_records.py", f"{_SERVER_TESTS}/test_jobs.py"],
    f"{_SERVER}/api/list_requests.py": [f"{_SERVER_TESTS}/test_list_requests.py"],
    f"{_SERVER}/store/paging.py": [f"{_SERVER_TESTS}/test_list_requests.py"],
    f"{_SDK}/_retry.py": [f"{_SDK_TESTS}/test_retries.py"],
    f"{_SDK}/_access.py": [f"{_SDK_TESTS}/test_access.py"],
    f"{_SDK}/_arrays.py": [f"{_SDK_TESTS}/test_arrays.py"],
    f"{_SDK}/_history.py": [f"{_SDK_TESTS}/test_history.py"],
    f"{_SDK}/_options.py": [f"{_SDK_TESTS}/test_local_fit.py"],
    f"{_SDK}/_uploads.py": [f"{_SDK_TESTS}/test_uploads.py"],
    f"{_SDK}/cli/data_files.py": [f"{_SDK_TESTS}/test_data_files.py"],
}
