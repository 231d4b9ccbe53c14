"""A culture as a value: what it consists of, what is set, what flows; built in or from a file."""

from .built_in import BUILT_IN as BUILT_IN
from .built_in import CHO_FED_BATCH as CHO_FED_BATCH
from .built_in import CHO_PERFUSION as CHO_PERFUSION
from .built_in import MONOD_CHEMOSTAT as MONOD_CHEMOSTAT
from .description import Process as Process
from .description import read_process as read_process
from .flows import StreamFlows as StreamFlows
from .flows import stream_flows as stream_flows
from .parts import Control as Control
from .parts import Quantity as Quantity
from .parts import Stream as Stream
