from .sources import LabyrinthRooms as LabyrinthRooms
from .sources import LabyrinthRotation as LabyrinthRotation
from .sources import LabyrinthWalk as LabyrinthWalk
