"""What a U-Net was trained to predict, asked of the weights themselves.

At the last timestep x_t is noise but for a trace of the image. A network that predicts epsilon there gives its input back;
one that predicts v = sqrt(a) eps - sqrt(1 - a) x_0 gives an image with its sign turned, which knows nothing of the noise.
The correlation of prediction and noise tells the two apart. A network that was never trained gives about 0 too. Source: own.
"""

import numpy as np
import torch
from torch import Tensor

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.noise_schedule import PredictionType

#: From here on the prediction is the noise; below the other one it is not. Between the two nothing is concluded.
ALIKE, UNLIKE = 0.8, 0.4


@torch.no_grad()
def noise_correlation(model: LatentDiffusion, seed: int = 0) -> float:
    """Correlation of the U-Net's output with its input of pure noise at the last timestep, for an empty text; one pass.

    Returns:
        Pearson's r over all values, in [-1, 1]; NaN where the output is constant or not finite.
    """
    draw = generator(seed, "prediction probe").standard_normal((1, *model.latent_shape), dtype=np.float32)
    noise = torch.from_numpy(draw).to(model.device, next(model.unet.parameters()).dtype)  # (1, C, h, w)
    last = torch.tensor([len(model.noise_schedule.alphas_cumprod) - 1], device=model.device)
    was_training = model.unet.training
    model.unet.eval()
    text = model.encode_texts([""])
    prediction: Tensor = model.unet(noise, last, **text.arguments()).sample
    model.unet.train(was_training)
    values = torch.stack([noise.double().flatten(), prediction.double().flatten()])
    return float(torch.corrcoef(values)[0, 1])


def measured(correlation: float, where: str) -> PredictionType:
    """What the weights predict.

    Raises:
        UserError: the correlation lies between the two.
    """
    if correlation >= ALIKE:
        return "epsilon"
    if abs(correlation) <= UNLIKE:
        return "v_prediction"
    raise UserError(
        f"{where} does not say what its U-Net predicts, and the weights do not tell (correlation with the noise at the last "
        f"timestep {correlation:.2f}; epsilon gives about 1, v about 0): give prediction_type, epsilon or v_prediction."
    )


def contradiction(correlation: float, told: PredictionType, where: str) -> str | None:
    """One sentence when the weights look like the other prediction than what the model is told; None when they do not."""
    at = f"at the last timestep the U-Net's output and the noise have the correlation {correlation:.2f}"
    if told == "epsilon" and abs(correlation) <= UNLIKE:
        return (
            f"{where}: prediction_type is epsilon, but {at}, as of a model that predicts v or of one that was never trained: "
            f"unless it is untrained, give prediction_type v_prediction."
        )
    if told == "v_prediction" and correlation >= ALIKE:
        return f"{where}: prediction_type is v_prediction, but {at}, as of a model that predicts epsilon: check which it is."
    return None
