"""What ``--help`` says of tasks by their names. Nothing is imported: help is cheap."""

FIRST_RUN = """\
  gtm-pyro train image-navigation --out runs/first
"""

TRAIN = """\
  gtm-pyro train image-navigation --seed 3 --steps 2000 --checkpoint_every 200 --out runs/a --device cpu
  gtm-pyro train image-navigation --data.images ~/photos --out runs/mine      images of your own
  gtm-pyro train image-navigation --data.walls false --out runs/open
  gtm-pyro train image-navigation --data.walls false --model.transition Translation --learning_rates.by_prefix '{}'
  gtm-pyro train image-navigation --learning_rates.by_prefix '{transition.displacement: 1e-3}' --out runs/b
  gtm-pyro train image-navigation --model.memory.num_neighbors 10 --stages '[{steps: 500, num_observed: 64}]'
  gtm-pyro train image-navigation --loss RenyiELBO --loss.num_particles 4 --out runs/c
  gtm-pyro train image-navigation --guide my_guides.MyGuide --guide.width 64 --out runs/d
"""

EVALUATE = """\
  gtm-pyro evaluate runs/walk --data LabyrinthRooms --evaluation.num_observed 150 --evaluation.num_predicted 300 \\
      --out rooms.json --report rooms                                         a model of one room, in several
"""

SEVERAL_ROOMS = """\
Several rooms (LabyrinthRooms) add how often a predicted frame is of the right room: room_accuracy, and beside it that
of the true frames, of copied ones, and of the room most often seen.
"""

DATA = """
Make the episodes of a labyrinth in advance, for training and for testing, as NPZ files that a training then reads. A
command that was stopped, even by force, goes on where it was: files that are there and whole are kept.

The same seed gives the same episodes, however many there are. The engine vizdoom needs pip install
"gtm-pyro[labyrinth]", the ray-caster nothing. Without --out the files go into a folder of the user's caches, where a
training with vizdoom finds them by itself; one with the ray-caster reads them with --data.cache DIR only.

examples:
  gtm-pyro data labyrinth-walk --episodes 1024 --out walks
  gtm-pyro data labyrinth-rotation --engine vizdoom --workers 2
  gtm-pyro data labyrinth-rooms --episodes 256 --seed 7 --out rooms
"""

DATA_NAMES = "labyrinth-rotation, labyrinth-walk or labyrinth-rooms"
DATA_PURPOSE = "make the episodes of a labyrinth in advance"
DATA_SEED = "of the labyrinths (default: %(default)s)"
DATA_STEADY = "labyrinth-rotation at full speed from the start, not from rest"
