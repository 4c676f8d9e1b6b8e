from .diagnostics.diagnosis import Diagnosis as Diagnosis
from .diagnostics.diagnosis import diagnose as diagnose
from .episodes import Episodes as Episodes
from .errors import GTMPyroError as GTMPyroError
from .evaluation.evaluation import Evaluation as Evaluation
from .evaluation.evaluation import evaluate as evaluate
from .memory.spatial import SpatialMemory as SpatialMemory
from .networks.frames import FrameDecoder as FrameDecoder
from .networks.frames import FrameEncoder as FrameEncoder
from .paths.transition import TransitionPath as TransitionPath
from .priors.mixture import BackgroundPrior as BackgroundPrior
from .priors.mixture import MixturePrior as MixturePrior
from .reading import Reading as Reading
from .tasks.base import EpisodeData as EpisodeData
from .tasks.image_navigation.source import ImageNavigation as ImageNavigation
from .tasks.saved import SavedEpisodes as SavedEpisodes
from .training.fitting import Run as Run
from .training.fitting import fit as fit
from .training.stages import LearningRates as LearningRates
from .training.stages import Stage as Stage
from .transitions.base import Transition as Transition
from .transitions.translation import Translation as Translation
from .transitions.translation import WalledTranslation as WalledTranslation

__version__: str
