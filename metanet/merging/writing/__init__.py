"""Writing a merge: the folder of weights, and the model card that says how it was made."""

from ._card import model_card as model_card
from ._parts import mains_of as mains_of
from ._saving import check_free as check_free
from ._saving import save_merged as save_merged
