"""Values of `log()` that are more than numbers; where W&B has them, too."""

from flightlog.data_types.audio import Audio
from flightlog.data_types.histogram import Histogram
from flightlog.data_types.html import Html
from flightlog.data_types.image import Image
from flightlog.data_types.table import Table
from flightlog.data_types.video import Video

__all__ = ("Audio", "Histogram", "Html", "Image", "Table", "Video")
