"""What each head looks at: episodes recorded, differentiated and drawn."""

from saccade.saliency.callback import SaliencyCallback
from saccade.saliency.episode import Episode, TapRecord, play_episode
from saccade.saliency.film import FilmError, dueling_film, film_strip, gaze_film
from saccade.saliency.jacobian import DuelingMaps, dueling_jacobian, episode_jacobian
from saccade.saliency.tensorboard import check_film, encode_film

__all__ = [
    "DuelingMaps",
    "Episode",
    "FilmError",
    "SaliencyCallback",
    "TapRecord",
    "check_film",
    "dueling_film",
    "dueling_jacobian",
    "encode_film",
    "episode_jacobian",
    "film_strip",
    "gaze_film",
    "play_episode",
]
