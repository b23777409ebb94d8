"""What notebook 07 measures, and the studies behind choices and published numbers.

Beside the field's way, on one stopwatch: ``mesh`` ``model`` ``network`` ``training`` ``data``
``render`` ``metrics`` ``demo``. Studies that take minutes to hours, each with a command of its own:
``accuracy`` (ours and Youtubehand's learn from the same pictures; ours without one of its parts),
``ablation`` (settings of the training at equal time), ``gpu_training`` (go on with a model for some
minutes of a GPU), ``kill_test`` (a training killed at random moments), ``scale`` (cost against
size), ``footprint`` (memory, and the first call), ``fitting`` (known hands, key points spoilt on
purpose), ``weak_supervision``, ``calibrate`` (confidence of a run),
``publish`` (a run becomes the reference). From this folder's parent::

    cd notebooks; python -m benchmarks.fitting 1000
"""
