"""Teachers: frozen image models whose features are cached. ``resolve`` describes one, ``load_teacher`` loads one."""

from frame.pipeline.teachers.checkpoint import weights_digest
from frame.pipeline.teachers.encode import Encoded, Encoding, Scales, encode
from frame.pipeline.teachers.geometry import Frames, fit_clips, fit_frames, stored_frames, to_pictures
from frame.pipeline.teachers.names import catalogue
from frame.pipeline.teachers.spec import Fit, TeacherSpec, resolve, resolve_all
from frame.pipeline.teachers.teacher import Precision, Teacher, finite, load_teacher
from frame.pipeline.teachers.weights import WeightSource, parse_weights

__all__ = [
    "Encoded",
    "Encoding",
    "Fit",
    "Frames",
    "Precision",
    "Scales",
    "Teacher",
    "TeacherSpec",
    "WeightSource",
    "catalogue",
    "encode",
    "finite",
    "fit_clips",
    "fit_frames",
    "load_teacher",
    "parse_weights",
    "resolve",
    "resolve_all",
    "stored_frames",
    "to_pictures",
    "weights_digest",
]
