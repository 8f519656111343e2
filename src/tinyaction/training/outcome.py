"""What every kind of run leaves: :func:`checkpoint_of` and :func:`write_page`."""

from collections.abc import Sequence
from dataclasses import asdict

from tinyaction.data.dataset import VideoDataset
from tinyaction.models import model_arguments
from tinyaction.models.checkpoint import Checkpoint
from tinyaction.models.recognizer import Recognizer
from tinyaction.prepare.synthetic import is_stand_in
from tinyaction.results.report import write_report
from tinyaction.results.run import RunFolder
from tinyaction.text import shell_line
from tinyaction.training.build import STAND_IN, eval_arguments
from tinyaction.training.config import RunConfig


def checkpoint_of(
    config: RunConfig, model: Recognizer, class_names: list[str], *, epoch: int, metrics: dict[str, float],
    thresholds: Sequence[float] = (),
) -> Checkpoint:
    """The weights of ``model`` and all else that a prediction needs."""
    return Checkpoint(model_arguments(config.model, model), model.state_dict(), class_names, eval_arguments(config),
                      epoch=epoch, metrics=metrics, config=asdict(config), stand_in=is_stand_in(config.data),
                      thresholds=list(thresholds))


def write_page(run: RunFolder, config: RunConfig, train_set: VideoDataset, val_set: VideoDataset) -> None:
    """Write the report, and log a failure instead of raising: the run itself is whole."""
    stand_in = is_stand_in(config.data)
    try:
        page = write_report(run.path, train_set=train_set, val_set=val_set, notice=STAND_IN if stand_in else "")
        run.log(f"report:   {page}")
    except (ValueError, OSError) as error:
        run.log(f"no report: {error}; try again with: {shell_line('tinyaction', 'report', run.path)}")
    if stand_in:
        run.log(STAND_IN)
