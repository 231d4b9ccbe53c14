"""What is known of a reactor: one moment, one rack, one run, one campaign.

`State` is a plain record of Python floats for the outside world. `StateBatch`, `Trajectory`
and `TrajectoryBatch` hold arrays and pass through `jit` and `vmap`. Names are static tuples.
Ids and metadata are static too, so a jitted function would compile anew for each run: call
`strip_ids()` before the jit boundary (and keep the ids outside).

A missing value is NaN, never zero. Row d of a run holds the sample of day d *and* the
set-points applied from that sample until the next one.
"""

from perfusio_jax.states.batch import StateBatch as StateBatch
from perfusio_jax.states.grid import cuts as cuts
from perfusio_jax.states.grid import on_grid as on_grid
from perfusio_jax.states.grid import usual_step_h as usual_step_h
from perfusio_jax.states.many import trajectories_of as trajectories_of
from perfusio_jax.states.padding import TrajectoryBatch as TrajectoryBatch
from perfusio_jax.states.padding import stack_trajectories as stack_trajectories
from perfusio_jax.states.sampling import intervals_text as intervals_text
from perfusio_jax.states.sampling import sampling_intervals as sampling_intervals
from perfusio_jax.states.setpoints import complete_setpoints as complete_setpoints
from perfusio_jax.states.state import State as State
from perfusio_jax.states.trajectory import Trajectory as Trajectory
