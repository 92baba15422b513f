"""What maps by timestep and their figures are called in pages. Source: own."""

#: kinds of maps by timestep
MAPS = {
    "attention": "attention",
    "end_token": "end token",
    "concept": "open vocabulary",
    "df_rise": "DF-RISE",
    "df_rise_prompt": "DF-RISE of the prompt",
    "df_cam": "DF-CAM",
    "relevance": "relevance",
    "untrained": "untrained weights",
    "prior": "location prior",
}
#: figures of maps by timestep -> (label, what it is)
SALIENCY = {
    "cnr": ("CNR", "contrast to noise ratio of the maps of one timestep on the boxes of the phrase"),
    "cnr_absent": ("CNR of an absent finding", "the same place asked for a finding that the image does not have"),
    "gain_absent": (
        "Gain over an absent finding",
        "what of the CNR is not had by asking the same image for a finding that it does not have",
    ),
    "auroc": ("AUROC", "chance that a pixel inside is hotter than one outside, 0 to 1, chance 0.5"),
    "top1": ("Top-1", "share of maps whose hottest pixel lies inside"),
}


def saliency_label(name: str) -> str:
    """``attention/cnr/Edema`` -> ``CNR of attention, Edema``; an unknown name is shown as it is.

    Example:
        >>> saliency_label("df_rise/gain_absent")
        'Gain over an absent finding, DF-RISE'
    """
    tool, figure, label = (*name.split("/"), "", "", "")[:3]
    if figure not in SALIENCY:
        return name
    return f"{SALIENCY[figure][0]}, {MAPS.get(tool, tool)}" + (f", {label}" if label else "")
