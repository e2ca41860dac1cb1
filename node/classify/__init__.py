"""Judge a sound: features at one internal rate, an int8 TFLite network, calibrated scores, a grade.

Windows round impulses come in from the trigger (or a whole recording, without one); a `Judgement`
goes out to the pipeline.
"""

from node.classify.abstainer import Abstainer
from node.classify.classifier import StreamJudgement, TfliteClassifier

__all__ = ["Abstainer", "StreamJudgement", "TfliteClassifier"]
