"""What each head looks at: episodes recorded, differentiated and drawn."""

from saccade.saliency.attention_maps import attention_map
from saccade.saliency.callback import SaliencyCallback
from saccade.saliency.decoding import Decoding, decode
from saccade.saliency.episode import Episode, TapRecord, play_episode
from saccade.saliency.film import FilmError, film_strip, gaze_film, heads_film
from saccade.saliency.jacobian import HeadMaps, episode_jacobian, head_jacobian
from saccade.saliency.memory_maps import memory_map
from saccade.saliency.sequential import SequentialJacobian, sequential_jacobian, time_map
from saccade.saliency.tensorboard import check_film, encode_film

__all__ = [
    "Decoding",
    "Episode",
    "FilmError",
    "HeadMaps",
    "SaliencyCallback",
    "SequentialJacobian",
    "TapRecord",
    "attention_map",
    "check_film",
    "decode",
    "encode_film",
    "episode_jacobian",
    "film_strip",
    "gaze_film",
    "head_jacobian",
    "heads_film",
    "memory_map",
    "play_episode",
    "sequential_jacobian",
    "time_map",
]
