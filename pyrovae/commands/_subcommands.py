"""The subcommands, whose imports take seconds."""

from typing import Annotated, Any, Union

import tyro

from pyrovae.commands.compare import Compare
from pyrovae.commands.encode import Encode
from pyrovae.commands.evaluate import Evaluate
from pyrovae.commands.fit import Fit
from pyrovae.commands.impute import Impute
from pyrovae.commands.outliers import Outliers
from pyrovae.commands.reconstruct import Reconstruct
from pyrovae.commands.resume import Resume
from pyrovae.commands.sample import Sample

SUBCOMMANDS: Any = Union[  # noqa: UP007
    tuple(
        Annotated[command, tyro.conf.subcommand(command.__name__.lower())]
        for command in (Compare, Fit, Resume, Evaluate, Encode, Reconstruct, Impute, Outliers, Sample)
    )
]
