"""Full evaluations of a trained model, one module a part: everything behind ``lightning evaluate``.

A part takes a model, a split of a cohort and its options, and writes tables into the folder of one evaluation. Parts can
be stopped and called again: what is done is not done twice. Source: own.
"""
