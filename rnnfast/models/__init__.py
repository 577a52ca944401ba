# SPDX-License-Identifier: Apache-2.0
"""The classic uses of recurrent nets, as small modules for one's own training loop. See docs/models."""

from rnnfast.models.base import Model, load, recurrent
from rnnfast.models.classifier import SequenceClassifier
from rnnfast.models.crf import LinearChainCRF
from rnnfast.models.distributions import Forecast
from rnnfast.models.forecaster import Forecaster
from rnnfast.models.language_model import LanguageModel
from rnnfast.models.search import Hypotheses, beam_search
from rnnfast.models.seq2seq import Seq2Seq
from rnnfast.models.slots import api_call, spans
from rnnfast.models.spelling import spell
from rnnfast.models.tagger import SequenceTagger, Tagging
from rnnfast.models.vocabulary import Vocabulary

__all__ = [
    "Forecast",
    "Forecaster",
    "Hypotheses",
    "LanguageModel",
    "LinearChainCRF",
    "Model",
    "Seq2Seq",
    "SequenceClassifier",
    "SequenceTagger",
    "Tagging",
    "Vocabulary",
    "api_call",
    "beam_search",
    "load",
    "recurrent",
    "spans",
    "spell",
]
