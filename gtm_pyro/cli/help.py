"""What ``--help`` says, command by command."""

from gtm_pyro.tasks import help

PURPOSE = "Generative temporal models with memory: train, measure and use them."

FIRST_RUN = f"""
a first run (a few minutes on two cores), and what to look at afterwards:
{help.FIRST_RUN}\
  open runs/first/report.html

gtm-pyro COMMAND --help tells more. Exit status: 0 done, 2 bad input or a run that cannot go on (one line says why),
130 or 143 stopped by Ctrl-C or SIGTERM; a training that was stopped, even by force, continues with --resume.
--debug, anywhere, also shows where an error came from.
"""

TRAIN = f"""
Train a model on an experiment, then evaluate it on held-out episodes and write a report.

A class is named in short where the library has it (--guide DeadReckoning), otherwise by its import path, looked for in
the current folder too. A guide is made with the model as its first argument. Every name and type is checked before
any work begins.

A run folder holds config.yaml (every field with its value), metrics.jsonl, checkpoint/, evaluation.json,
evaluation_by_horizon.npz, posterior.nc (opens with ArviZ), figures/ and report.html.

examples:
{help.TRAIN}\
  gtm-pyro train runs/a/config.yaml --seed 4 --out runs/e                     the same again with another seed
  gtm-pyro train --resume runs/a
"""

EVALUATE = f"""
Measure a trained run on held-out episodes: the first steps are memorised, the rest is predicted from actions alone.

With another source of episodes its own defaults hold; what was chosen for the run, such as an engine, is kept.
{help.SEVERAL_ROOMS}
A step is at a visited place if a memorised one was in the same cell, or had nearly the same view: as the data says what
that is, otherwise as is usual in its poses, or as evaluation.cell_size and evaluation.view_tolerance say.

examples:
  gtm-pyro evaluate runs/a
  gtm-pyro evaluate runs/a --evaluation.cell_size 0.25 --out metres.json      cells of a quarter of a pose unit
  gtm-pyro evaluate runs/a --data.images ~/photos --out photos.json           images of your own: all are held out
  gtm-pyro evaluate runs/a --evaluation.num_predicted 2000 --evaluation.num_episodes 8 --out long.json
  gtm-pyro evaluate runs/a --guide Smoothing --out smoothed.json              the same model, another inference
{help.EVALUATE}"""

DIAGNOSE = """
Tell when the posterior of a run can be trusted, with one sentence of advice for each check: khat (is the guide's path a
good proposal?), coverage (do credible regions hold the true position?), unseen (are predictions unsure of places never
visited?), ppc (do predicted frames look like real ones?), pit (is the decoder's noise that of the frames?) and sbc (is
the guide right on episodes that the model makes up itself?). Where model and guide are exact, a check raises an alarm
in at most 1% of the cases. Takes a minute or two.

The numbers go into DIR/evaluation.json, the draws into DIR/posterior.nc, figures into DIR/figures/, all with the advice
into DIR/report.html. coverage and unseen need true poses and are left out without; named in --checks, they must be
possible. With another guide or other data the results are shown, and written only with --out.

examples:
  gtm-pyro diagnose runs/a
  gtm-pyro diagnose runs/a --checks khat,coverage --evaluation.num_episodes 16
  gtm-pyro diagnose runs/a --guide Smoothing --out smoothed
"""

LOCALISE = """
Make a map of each world on a first walk, put the agent into a random cell of that world, and find it from what it sees.
Reports the share of agents found within half a cell after --observed_steps frames and, with --kidnap, within 32 frames
after they were put into another cell without an action. Takes seconds to a minute.

The run's own guide makes the maps. ParticleGuide with kidnap=0.01 finds the agent, unless --guide names another one
that has filter, memory and anywhere. A first walk of 256 steps visits 7 of 10 cells: the share of agents found is of
all, and apart from it of those whose true cell is in the map.

The numbers go into DIR/localisation.json, the figure into DIR/localisation.png.

examples:
  gtm-pyro localise runs/a --kidnap
  gtm-pyro localise runs/a --kidnap --memorised_steps 512 --slip 0.1 --out slipping
  gtm-pyro localise runs/a --num_hypotheses 256 --guide.kidnap 0.05
"""

COMPARE = """
One table and one figure of runs that differ in guide, loss, seed or anything else: bounds, errors of predicted frames
and of memorised ones, localisation, retrieval, k-hat, coverage and time, as far as some run has them. Settings that
differ between the runs are columns, up to eight; FILE.csv and FILE.json hold all of them, and all numbers. A number
that a run does not have yet is shown as "-", and a line says which command makes it; one that is not defined for the
run is shown as "none".

The figure shows one row for all runs that differ in their seed only. FILE.csv and FILE.json hold the table and have the
figure beside them, FILE.html holds both.

examples:
  gtm-pyro compare runs/a runs/b
  gtm-pyro compare runs/seed-* --out compared.html
"""

GENERATE = """
Let a trained model remember the first steps of a held-out episode and imagine what comes after, from actions alone.
The length is limited by nothing but the disk: memory grows only with what is written.

A file of actions holds one a line: a name (up), a number from 0, or a vector; or it is an .npy or .npz file of numbers
(steps,) or vectors (steps, action_dim).

The file that is written holds frames (steps, C, H, W), states, actions, entries (which memory was read); the remembered
steps as observed_frames, observed_states, observed_actions, observed_poses; and, where the data knows the true world,
true_frames, poses, visited and retrieved. The share of steps that read the right memory is shown. With --video there is
also a film: inferred places and imagined frames, at 12 steps a second.

examples:
  gtm-pyro generate runs/a --steps 10000 --out rollout.npz
  gtm-pyro generate runs/a --steps 500 --video rollout.mp4
  gtm-pyro generate runs/a --actions actions.txt --data.images ~/photos --out mine.npz
"""

REPORT = """
Evaluate a trained run again, and draw its figures and its page: DIR/figures/ and DIR/report.html.

example:
  gtm-pyro report runs/a
"""

DATA_IMPORT = """
Import episodes as shards of bytes, which any experiment then trains on. What SOURCE is shows by its name. A command
that was stopped, even by force, goes on where it was; where all is there, nothing is done.

* A Gymnasium id: episodes are played, without a window. Frames are what is observed if that is an image, otherwise what
  is rendered. Of MiniGrid it is the part that the agent sees, 4 pixels a tile (or as --size says); poses are known of
  MiniGrid, MiniWorld and Memory Maze. Needs pip install "gtm-pyro[gymnasium]", [minigrid], [miniworld] or
  [memory-maze].
* NPZ in the style of world-model code (Memory Maze, Dreamer): image, action, is_first or reset, agent_pos, agent_dir;
  action[t] led to image[t].
* HDF5 in D4RL's layout: observations, actions, terminals, timeouts; action[t] leads to observation t + 1. A Minari data
  set, by id or folder, likewise (needs "gtm-pyro[minari]").
* A video beside a CSV or JSONL file of its name, with a row for each step: action (a number, a name) or action_0,
  action_1, ..., and time in seconds or frame; x, y, heading are poses. Needs "gtm-pyro[video]".

examples:
  gtm-pyro data import MiniGrid-FourRooms-v0 --episodes 100 --out rooms
  gtm-pyro data import MiniGrid-FourRooms-v0 --size 56 --steps 150 --only 0,1,2 --policy my_agents.Explorer --out far
  gtm-pyro data import MiniWorld-OneRoom-v0 --size 32 --out oneroom
  gtm-pyro data import walks.hdf5 --out walks
  gtm-pyro data import kitchen.mp4 --actions steps.csv --crop square --size 64 --out kitchen
"""

LIST = """
The experiments, and the classes that can be named in them, with a line on each. Classes of your own are named by their
import path and need no registration.
"""
