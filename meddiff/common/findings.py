"""The vocabulary of findings: the classes everything here is asked about. Source: Dombrowski et al. 2024, Table 1."""

#: The eight finding classes of the paper (Table 1), in its order, and the healthy label.
FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Lung Opacity",
    "Pleural Effusion",
    "Pneumonia",
    "Pneumothorax",
)
NO_FINDING = "No Finding"

#: What may stand in an image beside findings and lead a model astray: the shortcuts that a mask can be named after.
CONFOUNDERS = ("tube", "marker", "pacemaker", "text", "site")
