"""The modules that are mutated, and the pytest arguments for the tests that must detect the mutants.

The list contains the pure modules and the modules that unit tests cover. The tests of a module must take only a few
seconds, because they run once for each mutant.
"""

_ENGINE, _SDK, _SERVER, _WORKER = (
    "engine/gradwire_engine", "client_sdk/gradwire", "server/gradwire_server", "worker/gradwire_worker"
)  # fmt: skip
_ENGINE_TESTS, _SDK_TESTS, _SERVER_TESTS, _WORKER_TESTS = (
    f"tests/unit/{package}" for package in ("engine", "client_sdk", "server", "worker")
)
# Exclude the slowest test, which trains the chapter's model.
_CHAPTER = (
    f"{_ENGINE_TESTS}/test_chapter.py",
    f"--deselect={_ENGINE_TESTS}/test_chapter.py::test_the_chapters_loop_learns",
)
_LOSSES = f"{_ENGINE_TESTS}/test_losses_and_metrics.py"
_GRADIENTS = f"{_ENGINE_TESTS}/test_gradients.py"
_SPEC = f"{_ENGINE_TESTS}/test_spec.py"
_TRACING = f"{_ENGINE_TESTS}/test_tracing.py"
_TRAINING = f"{_ENGINE_TESTS}/test_training.py"
_WORKER_TEST = f"{_WORKER_TESTS}/test_worker.py"
_STOPPING = f"{_ENGINE_TESTS}/test_stopping.py"
_LIST_REQUESTS = f"{_SERVER_TESTS}/test_list_requests.py"

MODULES: dict[str, list[str]] = {
    f"{_ENGINE}/losses.py": [_LOSSES, _GRADIENTS],
    f"{_ENGINE}/metrics.py": [_LOSSES],
    f"{_ENGINE}/training.py": [_TRAINING, "-k", "not any_stack"],
    f"{_ENGINE}/randomness.py": [
        f"{_SPEC}::test_each_layer_of_a_job_is_drawn_from_its_own_random_stream",
        f"{_SPEC}::test_a_job_draws_deferred_layers_by_their_own_method",
        f"{_TRAINING}::test_the_order_of_an_epoch_is_the_permutation_of_its_own_random_stream",
        *_CHAPTER,
    ],
    f"{_ENGINE}/network.py": [_TRAINING],
    f"{_ENGINE}/layers.py": [_GRADIENTS, *_CHAPTER],
    f"{_ENGINE}/module.py": [_TRACING, *_CHAPTER],
    f"{_ENGINE}/optim.py": [
        *_CHAPTER,
        f"{_ENGINE_TESTS}/test_independent_results.py::test_an_sgd_step_matches_its_formula",
    ],
    f"{_ENGINE}/classification.py": [f"{_ENGINE_TESTS}/test_classification.py"],
    f"{_ENGINE}/flat.py": [f"{_ENGINE_TESTS}/test_flat.py"],
    f"{_ENGINE}/formatting.py": [f"{_SDK_TESTS}/test_formatting.py"],
    f"{_ENGINE}/inference.py": [f"{_ENGINE_TESTS}/test_inference.py"],
    f"{_ENGINE}/stopping.py": [_STOPPING],
    f"{_ENGINE}/summary.py": [f"{_ENGINE_TESTS}/test_summary.py"],
    f"{_ENGINE}/symbol.py": [_TRACING, f"{_ENGINE_TESTS}/test_summary.py"],
    f"{_ENGINE}/spec/messages.py": [_SPEC, "-k", "epoch"],
    f"{_ENGINE}/spec/prepare.py": [_SPEC, "-k", "weights or loss or drawn or draws"],
    f"{_ENGINE}/spec/resolve.py": [_SPEC, "-k", "resolved or architecture or tensors_of or size_of_the_weights"],
    f"{_ENGINE}/spec/stopping.py": [_STOPPING],
    f"{_ENGINE}/spec/summary.py": [_SPEC, "-k", "summar"],
    f"{_ENGINE}/spec/tensors.py": [_SPEC, "-k", "tensor or digest or shapes or arrays or named"],
    f"{_ENGINE}/spec/tracing.py": [_TRACING],
    f"{_ENGINE}/spec/validation.py": [_SPEC, f"{_STOPPING}::test_invalid_numbers_are_refused", "-k", "not summar"],
    f"{_WORKER}/checkpoint_policy.py": [f"{_WORKER_TEST}::test_the_interval_of_checkpoints_depends_on_their_cost"],
    f"{_WORKER}/messages.py": [_WORKER_TEST, "-k", "packed or its_start_epochs"],
    f"{_WORKER}/outbox.py": [
        _WORKER_TEST,
        "-k",
        "reports or poll or outbox or weights_are_unack or acknowledges or first_report",
    ],
    f"{_SERVER}/budget.py": [f"{_SERVER_TESTS}/test_budget.py"],
    f"{_SERVER}/log_limit.py": [f"{_SERVER_TESTS}/test_log_limit.py"],
    f"{_SERVER}/resource_names.py": [f"{_SERVER_TESTS}/test_names.py"],
    f"{_SERVER}/http/json_messages.py": [f"{_SERVER_TESTS}/test_json_messages.py"],
    f"{_SERVER}/http/pace.py": [f"{_SERVER_TESTS}/test_http_pace.py"],
    f"{_SERVER}/jobs/job_size.py": [f"{_SERVER_TESTS}/test_job_size.py"],
    f"{_SERVER}/jobs/labels.py": [f"{_SERVER_TESTS}/test_names.py"],
    f"{_SERVER}/jobs/samples.py": [f"{_SERVER_TESTS}/test_page_files.py", "-k", "sample"],
    f"{_SERVER}/models/card.py": [f"{_SERVER_TESTS}/test_model_card.py"],
    f"{_SERVER}/scheduling/policy.py": [f"{_SERVER_TESTS}/test_policy.py"],
    f"{_SERVER}/jobs/events.py": [f"{_SERVER_TESTS}/test_attempt_records.py"],
    f"{_SERVER}/api/request_fields.py": [f"{_SERVER_TESTS}/test_request_fields.py"],
    f"{_SERVER}/api/list_requests.py": [_LIST_REQUESTS, "-k", "not sqlite and not postgres and not job"],
    f"{_SERVER}/store/paging.py": [_LIST_REQUESTS, "-k", "not postgres"],
    f"{_SDK}/_retry.py": [f"{_SDK_TESTS}/test_retries.py"],
    f"{_SDK}/_access.py": [f"{_SDK_TESTS}/test_access.py"],
    f"{_SDK}/_argument_names.py": [f"{_SDK_TESTS}/test_exceptions.py"],
    f"{_SDK}/_arrays.py": [f"{_SDK_TESTS}/test_arrays.py"],
    f"{_SDK}/_class_names.py": [
        f"{_SDK_TESTS}/test_class_names.py",
        "-k",
        "not same_model and not next_fit and not model_file",
    ],
    f"{_SDK}/_curve.py": [f"{_SDK_TESTS}/test_formatting.py"],
    f"{_SDK}/_follow.py": [f"{_SDK_TESTS}/test_follow.py"],
    f"{_SDK}/_hints.py": [f"{_SDK_TESTS}/test_hints.py", "-k", "not real"],
    f"{_SDK}/_history.py": [f"{_SDK_TESTS}/test_history.py"],
    f"{_SDK}/_numbers.py": [f"{_SDK_TESTS}/test_options.py"],
    f"{_SDK}/_options.py": [f"{_SDK_TESTS}/test_options.py"],
    f"{_SDK}/_names.py": [f"{_SDK_TESTS}/test_names.py"],
    f"{_SDK}/_progress.py": [f"{_SDK_TESTS}/test_progress.py"],
    f"{_SDK}/_status.py": [f"{_SDK_TESTS}/test_exceptions.py"],
    f"{_SDK}/_stopping.py": [f"{_SDK_TESTS}/test_stopping_and_callbacks.py", "-k", "early_stopping or policy"],
    f"{_SDK}/_svg.py": [f"{_SDK_TESTS}/test_notebook.py"],
    f"{_SDK}/_uploads.py": [f"{_SDK_TESTS}/test_uploads.py"],
    f"{_SDK}/cli/data_files.py": [f"{_SDK_TESTS}/test_data_files.py"],
    f"{_SDK}/cli/output.py": [f"{_SDK_TESTS}/test_output.py"],
}
