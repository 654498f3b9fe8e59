import datetime

from google.protobuf import any_pb2 as _any_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DataType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATA_TYPE_UNSPECIFIED: _ClassVar[DataType]
    DATA_TYPE_FLOAT32: _ClassVar[DataType]
    DATA_TYPE_UINT8: _ClassVar[DataType]
    DATA_TYPE_FLOAT16: _ClassVar[DataType]

class Detail(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DETAIL_UNSPECIFIED: _ClassVar[Detail]
    DETAIL_STATISTICS: _ClassVar[Detail]
    DETAIL_FULL: _ClassVar[Detail]
    DETAIL_TOP_K: _ClassVar[Detail]
    DETAIL_UNITS: _ClassVar[Detail]

class AttributionMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ATTRIBUTION_METHOD_UNSPECIFIED: _ClassVar[AttributionMethod]
    ATTRIBUTION_METHOD_LINEAR_REGION: _ClassVar[AttributionMethod]
    ATTRIBUTION_METHOD_INTEGRATED_GRADIENTS: _ClassVar[AttributionMethod]
    ATTRIBUTION_METHOD_SALIENCY: _ClassVar[AttributionMethod]
DATA_TYPE_UNSPECIFIED: DataType
DATA_TYPE_FLOAT32: DataType
DATA_TYPE_UINT8: DataType
DATA_TYPE_FLOAT16: DataType
DETAIL_UNSPECIFIED: Detail
DETAIL_STATISTICS: Detail
DETAIL_FULL: Detail
DETAIL_TOP_K: Detail
DETAIL_UNITS: Detail
ATTRIBUTION_METHOD_UNSPECIFIED: AttributionMethod
ATTRIBUTION_METHOD_LINEAR_REGION: AttributionMethod
ATTRIBUTION_METHOD_INTEGRATED_GRADIENTS: AttributionMethod
ATTRIBUTION_METHOD_SALIENCY: AttributionMethod

class Tensor(_message.Message):
    __slots__ = ("dtype", "shape", "data")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    dtype: DataType
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, dtype: _Optional[_Union[DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class ModelSelector(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class ModelIdentity(_message.Message):
    __slots__ = ("name", "version", "runtime")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    runtime: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., runtime: _Optional[str] = ...) -> None: ...

class PredictRequest(_message.Message):
    __slots__ = ("images", "model")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    images: Tensor
    model: ModelSelector
    def __init__(self, images: _Optional[_Union[Tensor, _Mapping]] = ..., model: _Optional[_Union[ModelSelector, _Mapping]] = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("logits", "model")
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    logits: Tensor
    model: ModelIdentity
    def __init__(self, logits: _Optional[_Union[Tensor, _Mapping]] = ..., model: _Optional[_Union[ModelIdentity, _Mapping]] = ...) -> None: ...

class PredictStreamRequest(_message.Message):
    __slots__ = ("images", "model")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    images: Tensor
    model: ModelSelector
    def __init__(self, images: _Optional[_Union[Tensor, _Mapping]] = ..., model: _Optional[_Union[ModelSelector, _Mapping]] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("code", "message", "details")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    details: _containers.RepeatedCompositeFieldContainer[_any_pb2.Any]
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., details: _Optional[_Iterable[_Union[_any_pb2.Any, _Mapping]]] = ...) -> None: ...

class PredictStreamResponse(_message.Message):
    __slots__ = ("logits", "error", "model")
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    logits: Tensor
    error: Status
    model: ModelIdentity
    def __init__(self, logits: _Optional[_Union[Tensor, _Mapping]] = ..., error: _Optional[_Union[Status, _Mapping]] = ..., model: _Optional[_Union[ModelIdentity, _Mapping]] = ...) -> None: ...

class StageSelection(_message.Message):
    __slots__ = ("name", "detail")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    name: str
    detail: Detail
    def __init__(self, name: _Optional[str] = ..., detail: _Optional[_Union[Detail, str]] = ...) -> None: ...

class Values(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class Clamp(_message.Message):
    __slots__ = ("min", "max")
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    min: float
    max: float
    def __init__(self, min: _Optional[float] = ..., max: _Optional[float] = ...) -> None: ...

class Intervention(_message.Message):
    __slots__ = ("stage", "units", "images", "zero", "set", "add", "scale", "clamp", "from_image")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    ZERO_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    ADD_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    CLAMP_FIELD_NUMBER: _ClassVar[int]
    FROM_IMAGE_FIELD_NUMBER: _ClassVar[int]
    stage: str
    units: _containers.RepeatedScalarFieldContainer[int]
    images: _containers.RepeatedScalarFieldContainer[int]
    zero: bool
    set: Values
    add: float
    scale: float
    clamp: Clamp
    from_image: int
    def __init__(self, stage: _Optional[str] = ..., units: _Optional[_Iterable[int]] = ..., images: _Optional[_Iterable[int]] = ..., zero: _Optional[bool] = ..., set: _Optional[_Union[Values, _Mapping]] = ..., add: _Optional[float] = ..., scale: _Optional[float] = ..., clamp: _Optional[_Union[Clamp, _Mapping]] = ..., from_image: _Optional[int] = ...) -> None: ...

class TraceRequest(_message.Message):
    __slots__ = ("images", "model", "stages", "detail", "top_k_count", "interventions", "unchanged_logits", "certify")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    TOP_K_COUNT_FIELD_NUMBER: _ClassVar[int]
    INTERVENTIONS_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_LOGITS_FIELD_NUMBER: _ClassVar[int]
    CERTIFY_FIELD_NUMBER: _ClassVar[int]
    images: Tensor
    model: ModelSelector
    stages: _containers.RepeatedCompositeFieldContainer[StageSelection]
    detail: Detail
    top_k_count: int
    interventions: _containers.RepeatedCompositeFieldContainer[Intervention]
    unchanged_logits: bool
    certify: bool
    def __init__(self, images: _Optional[_Union[Tensor, _Mapping]] = ..., model: _Optional[_Union[ModelSelector, _Mapping]] = ..., stages: _Optional[_Iterable[_Union[StageSelection, _Mapping]]] = ..., detail: _Optional[_Union[Detail, str]] = ..., top_k_count: _Optional[int] = ..., interventions: _Optional[_Iterable[_Union[Intervention, _Mapping]]] = ..., unchanged_logits: _Optional[bool] = ..., certify: _Optional[bool] = ...) -> None: ...

class Statistics(_message.Message):
    __slots__ = ("min", "max", "mean", "standard_deviation", "l2_norm", "zero_share", "nan_count", "infinity_count")
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    STANDARD_DEVIATION_FIELD_NUMBER: _ClassVar[int]
    L2_NORM_FIELD_NUMBER: _ClassVar[int]
    ZERO_SHARE_FIELD_NUMBER: _ClassVar[int]
    NAN_COUNT_FIELD_NUMBER: _ClassVar[int]
    INFINITY_COUNT_FIELD_NUMBER: _ClassVar[int]
    min: float
    max: float
    mean: float
    standard_deviation: float
    l2_norm: float
    zero_share: float
    nan_count: int
    infinity_count: int
    def __init__(self, min: _Optional[float] = ..., max: _Optional[float] = ..., mean: _Optional[float] = ..., standard_deviation: _Optional[float] = ..., l2_norm: _Optional[float] = ..., zero_share: _Optional[float] = ..., nan_count: _Optional[int] = ..., infinity_count: _Optional[int] = ...) -> None: ...

class TopK(_message.Message):
    __slots__ = ("indices", "values")
    INDICES_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    indices: _containers.RepeatedScalarFieldContainer[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, indices: _Optional[_Iterable[int]] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class UnitStatistics(_message.Message):
    __slots__ = ("mean", "standard_deviation", "min", "max", "zero_share")
    MEAN_FIELD_NUMBER: _ClassVar[int]
    STANDARD_DEVIATION_FIELD_NUMBER: _ClassVar[int]
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    ZERO_SHARE_FIELD_NUMBER: _ClassVar[int]
    mean: Tensor
    standard_deviation: Tensor
    min: Tensor
    max: Tensor
    zero_share: Tensor
    def __init__(self, mean: _Optional[_Union[Tensor, _Mapping]] = ..., standard_deviation: _Optional[_Union[Tensor, _Mapping]] = ..., min: _Optional[_Union[Tensor, _Mapping]] = ..., max: _Optional[_Union[Tensor, _Mapping]] = ..., zero_share: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class Certificate(_message.Message):
    __slots__ = ("predicted_class", "nearest_class", "gap", "bound", "certified")
    PREDICTED_CLASS_FIELD_NUMBER: _ClassVar[int]
    NEAREST_CLASS_FIELD_NUMBER: _ClassVar[int]
    GAP_FIELD_NUMBER: _ClassVar[int]
    BOUND_FIELD_NUMBER: _ClassVar[int]
    CERTIFIED_FIELD_NUMBER: _ClassVar[int]
    predicted_class: int
    nearest_class: int
    gap: float
    bound: float
    certified: bool
    def __init__(self, predicted_class: _Optional[int] = ..., nearest_class: _Optional[int] = ..., gap: _Optional[float] = ..., bound: _Optional[float] = ..., certified: _Optional[bool] = ...) -> None: ...

class TracedStage(_message.Message):
    __slots__ = ("name", "operation", "shape", "flops_per_image", "statistics", "values", "top_values", "changed", "units", "bound")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    FLOPS_PER_IMAGE_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    TOP_VALUES_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    BOUND_FIELD_NUMBER: _ClassVar[int]
    name: str
    operation: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    flops_per_image: int
    statistics: Statistics
    values: Tensor
    top_values: _containers.RepeatedCompositeFieldContainer[TopK]
    changed: bool
    units: UnitStatistics
    bound: float
    def __init__(self, name: _Optional[str] = ..., operation: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., flops_per_image: _Optional[int] = ..., statistics: _Optional[_Union[Statistics, _Mapping]] = ..., values: _Optional[_Union[Tensor, _Mapping]] = ..., top_values: _Optional[_Iterable[_Union[TopK, _Mapping]]] = ..., changed: _Optional[bool] = ..., units: _Optional[_Union[UnitStatistics, _Mapping]] = ..., bound: _Optional[float] = ...) -> None: ...

class TraceResponse(_message.Message):
    __slots__ = ("logits", "model", "stages", "queue_seconds", "run_seconds", "unchanged_logits", "certificates")
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    QUEUE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RUN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_LOGITS_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    logits: Tensor
    model: ModelIdentity
    stages: _containers.RepeatedCompositeFieldContainer[TracedStage]
    queue_seconds: float
    run_seconds: float
    unchanged_logits: Tensor
    certificates: _containers.RepeatedCompositeFieldContainer[Certificate]
    def __init__(self, logits: _Optional[_Union[Tensor, _Mapping]] = ..., model: _Optional[_Union[ModelIdentity, _Mapping]] = ..., stages: _Optional[_Iterable[_Union[TracedStage, _Mapping]]] = ..., queue_seconds: _Optional[float] = ..., run_seconds: _Optional[float] = ..., unchanged_logits: _Optional[_Union[Tensor, _Mapping]] = ..., certificates: _Optional[_Iterable[_Union[Certificate, _Mapping]]] = ...) -> None: ...

class AttributeRequest(_message.Message):
    __slots__ = ("images", "model", "method", "target_class", "other_class", "stage", "baseline")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    TARGET_CLASS_FIELD_NUMBER: _ClassVar[int]
    OTHER_CLASS_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    BASELINE_FIELD_NUMBER: _ClassVar[int]
    images: Tensor
    model: ModelSelector
    method: AttributionMethod
    target_class: int
    other_class: int
    stage: str
    baseline: Tensor
    def __init__(self, images: _Optional[_Union[Tensor, _Mapping]] = ..., model: _Optional[_Union[ModelSelector, _Mapping]] = ..., method: _Optional[_Union[AttributionMethod, str]] = ..., target_class: _Optional[int] = ..., other_class: _Optional[int] = ..., stage: _Optional[str] = ..., baseline: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class Attribution(_message.Message):
    __slots__ = ("target_class", "score", "bias", "stage_bias", "residual", "residual_bound")
    TARGET_CLASS_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    STAGE_BIAS_FIELD_NUMBER: _ClassVar[int]
    RESIDUAL_FIELD_NUMBER: _ClassVar[int]
    RESIDUAL_BOUND_FIELD_NUMBER: _ClassVar[int]
    target_class: int
    score: float
    bias: float
    stage_bias: float
    residual: float
    residual_bound: float
    def __init__(self, target_class: _Optional[int] = ..., score: _Optional[float] = ..., bias: _Optional[float] = ..., stage_bias: _Optional[float] = ..., residual: _Optional[float] = ..., residual_bound: _Optional[float] = ...) -> None: ...

class AttributeResponse(_message.Message):
    __slots__ = ("contributions", "model", "stage_contributions", "attributions", "queue_seconds", "run_seconds")
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    STAGE_CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RUN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    contributions: Tensor
    model: ModelIdentity
    stage_contributions: Tensor
    attributions: _containers.RepeatedCompositeFieldContainer[Attribution]
    queue_seconds: float
    run_seconds: float
    def __init__(self, contributions: _Optional[_Union[Tensor, _Mapping]] = ..., model: _Optional[_Union[ModelIdentity, _Mapping]] = ..., stage_contributions: _Optional[_Union[Tensor, _Mapping]] = ..., attributions: _Optional[_Iterable[_Union[Attribution, _Mapping]]] = ..., queue_seconds: _Optional[float] = ..., run_seconds: _Optional[float] = ...) -> None: ...

class CompareRequest(_message.Message):
    __slots__ = ("images", "model", "runtimes")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RUNTIMES_FIELD_NUMBER: _ClassVar[int]
    images: Tensor
    model: ModelSelector
    runtimes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, images: _Optional[_Union[Tensor, _Mapping]] = ..., model: _Optional[_Union[ModelSelector, _Mapping]] = ..., runtimes: _Optional[_Iterable[str]] = ...) -> None: ...

class StageComparison(_message.Message):
    __slots__ = ("stage", "max_error", "mean_error", "max_bound_share", "max_ulps")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    MAX_ERROR_FIELD_NUMBER: _ClassVar[int]
    MEAN_ERROR_FIELD_NUMBER: _ClassVar[int]
    MAX_BOUND_SHARE_FIELD_NUMBER: _ClassVar[int]
    MAX_ULPS_FIELD_NUMBER: _ClassVar[int]
    stage: str
    max_error: float
    mean_error: float
    max_bound_share: float
    max_ulps: float
    def __init__(self, stage: _Optional[str] = ..., max_error: _Optional[float] = ..., mean_error: _Optional[float] = ..., max_bound_share: _Optional[float] = ..., max_ulps: _Optional[float] = ...) -> None: ...

class RuntimeComparison(_message.Message):
    __slots__ = ("runtime", "stages", "diverges_at", "different_decisions")
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    DIVERGES_AT_FIELD_NUMBER: _ClassVar[int]
    DIFFERENT_DECISIONS_FIELD_NUMBER: _ClassVar[int]
    runtime: str
    stages: _containers.RepeatedCompositeFieldContainer[StageComparison]
    diverges_at: str
    different_decisions: int
    def __init__(self, runtime: _Optional[str] = ..., stages: _Optional[_Iterable[_Union[StageComparison, _Mapping]]] = ..., diverges_at: _Optional[str] = ..., different_decisions: _Optional[int] = ...) -> None: ...

class CompareResponse(_message.Message):
    __slots__ = ("model", "runtimes", "certified_share")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RUNTIMES_FIELD_NUMBER: _ClassVar[int]
    CERTIFIED_SHARE_FIELD_NUMBER: _ClassVar[int]
    model: ModelIdentity
    runtimes: _containers.RepeatedCompositeFieldContainer[RuntimeComparison]
    certified_share: float
    def __init__(self, model: _Optional[_Union[ModelIdentity, _Mapping]] = ..., runtimes: _Optional[_Iterable[_Union[RuntimeComparison, _Mapping]]] = ..., certified_share: _Optional[float] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: ModelSelector
    def __init__(self, model: _Optional[_Union[ModelSelector, _Mapping]] = ...) -> None: ...

class InputSpecification(_message.Message):
    __slots__ = ("shape", "dtypes", "min_value", "max_value")
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPES_FIELD_NUMBER: _ClassVar[int]
    MIN_VALUE_FIELD_NUMBER: _ClassVar[int]
    MAX_VALUE_FIELD_NUMBER: _ClassVar[int]
    shape: _containers.RepeatedScalarFieldContainer[int]
    dtypes: _containers.RepeatedScalarFieldContainer[DataType]
    min_value: float
    max_value: float
    def __init__(self, shape: _Optional[_Iterable[int]] = ..., dtypes: _Optional[_Iterable[_Union[DataType, str]]] = ..., min_value: _Optional[float] = ..., max_value: _Optional[float] = ...) -> None: ...

class StageSpecification(_message.Message):
    __slots__ = ("name", "operation", "description", "shape", "flops_per_image", "parameter_count")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    FLOPS_PER_IMAGE_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_COUNT_FIELD_NUMBER: _ClassVar[int]
    name: str
    operation: str
    description: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    flops_per_image: int
    parameter_count: int
    def __init__(self, name: _Optional[str] = ..., operation: _Optional[str] = ..., description: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., flops_per_image: _Optional[int] = ..., parameter_count: _Optional[int] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_batch_images", "max_response_bytes")
    MAX_BATCH_IMAGES_FIELD_NUMBER: _ClassVar[int]
    MAX_RESPONSE_BYTES_FIELD_NUMBER: _ClassVar[int]
    max_batch_images: int
    max_response_bytes: int
    def __init__(self, max_batch_images: _Optional[int] = ..., max_response_bytes: _Optional[int] = ...) -> None: ...

class Metric(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...

class ReloadFailure(_message.Message):
    __slots__ = ("version", "message", "time")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    version: int
    message: str
    time: _timestamp_pb2.Timestamp
    def __init__(self, version: _Optional[int] = ..., message: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Reload(_message.Message):
    __slots__ = ("loaded_time", "failure")
    LOADED_TIME_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    loaded_time: _timestamp_pb2.Timestamp
    failure: ReloadFailure
    def __init__(self, loaded_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., failure: _Optional[_Union[ReloadFailure, _Mapping]] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model", "device", "provider", "input", "stages", "labels", "parameter_count", "limits", "metrics", "reload", "manifest_sha256")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_COUNT_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    RELOAD_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_SHA256_FIELD_NUMBER: _ClassVar[int]
    model: ModelIdentity
    device: str
    provider: str
    input: InputSpecification
    stages: _containers.RepeatedCompositeFieldContainer[StageSpecification]
    labels: _containers.RepeatedScalarFieldContainer[str]
    parameter_count: int
    limits: Limits
    metrics: _containers.RepeatedCompositeFieldContainer[Metric]
    reload: Reload
    manifest_sha256: str
    def __init__(self, model: _Optional[_Union[ModelIdentity, _Mapping]] = ..., device: _Optional[str] = ..., provider: _Optional[str] = ..., input: _Optional[_Union[InputSpecification, _Mapping]] = ..., stages: _Optional[_Iterable[_Union[StageSpecification, _Mapping]]] = ..., labels: _Optional[_Iterable[str]] = ..., parameter_count: _Optional[int] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., metrics: _Optional[_Iterable[_Union[Metric, _Mapping]]] = ..., reload: _Optional[_Union[Reload, _Mapping]] = ..., manifest_sha256: _Optional[str] = ...) -> None: ...

class GetTrainingHistoryRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: ModelSelector
    def __init__(self, model: _Optional[_Union[ModelSelector, _Mapping]] = ...) -> None: ...

class Epoch(_message.Message):
    __slots__ = ("epoch", "train_loss", "train_accuracy", "held_out_loss", "held_out_accuracy", "learning_rate", "seconds", "observation")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    TRAIN_LOSS_FIELD_NUMBER: _ClassVar[int]
    TRAIN_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    HELD_OUT_LOSS_FIELD_NUMBER: _ClassVar[int]
    HELD_OUT_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    train_loss: float
    train_accuracy: float
    held_out_loss: float
    held_out_accuracy: float
    learning_rate: float
    seconds: float
    observation: str
    def __init__(self, epoch: _Optional[int] = ..., train_loss: _Optional[float] = ..., train_accuracy: _Optional[float] = ..., held_out_loss: _Optional[float] = ..., held_out_accuracy: _Optional[float] = ..., learning_rate: _Optional[float] = ..., seconds: _Optional[float] = ..., observation: _Optional[str] = ...) -> None: ...

class GetTrainingHistoryResponse(_message.Message):
    __slots__ = ("model", "epochs", "snapshot_epochs", "served_epoch")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    SERVED_EPOCH_FIELD_NUMBER: _ClassVar[int]
    model: ModelIdentity
    epochs: _containers.RepeatedCompositeFieldContainer[Epoch]
    snapshot_epochs: _containers.RepeatedScalarFieldContainer[int]
    served_epoch: int
    def __init__(self, model: _Optional[_Union[ModelIdentity, _Mapping]] = ..., epochs: _Optional[_Iterable[_Union[Epoch, _Mapping]]] = ..., snapshot_epochs: _Optional[_Iterable[int]] = ..., served_epoch: _Optional[int] = ...) -> None: ...

class GetParametersRequest(_message.Message):
    __slots__ = ("model", "epoch", "stages")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    model: ModelSelector
    epoch: int
    stages: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model: _Optional[_Union[ModelSelector, _Mapping]] = ..., epoch: _Optional[int] = ..., stages: _Optional[_Iterable[str]] = ...) -> None: ...

class StageParameters(_message.Message):
    __slots__ = ("stage", "weight", "bias")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    stage: str
    weight: Tensor
    bias: Tensor
    def __init__(self, stage: _Optional[str] = ..., weight: _Optional[_Union[Tensor, _Mapping]] = ..., bias: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class GetParametersResponse(_message.Message):
    __slots__ = ("model", "epoch", "stages")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    model: ModelIdentity
    epoch: int
    stages: _containers.RepeatedCompositeFieldContainer[StageParameters]
    def __init__(self, model: _Optional[_Union[ModelIdentity, _Mapping]] = ..., epoch: _Optional[int] = ..., stages: _Optional[_Iterable[_Union[StageParameters, _Mapping]]] = ...) -> None: ...
