"""From a scene to pixels, masks and boxes. Source: own."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, gaussian_filter
from scipy.ndimage import label as connected

from meddiff.common.draws import generator
from meddiff.phantoms import source
from meddiff.phantoms.chest import Chest
from meddiff.phantoms.confounders import overlay
from meddiff.phantoms.fields import Field, blur_wide
from meddiff.phantoms.lesions import EFFECTS, Effect
from meddiff.phantoms.scene import Exposure, Scene
from meddiff.shards.sample import Box

LUNG_AIR = 0.37  # density that a full lung of air takes away


@dataclass
class Rendering:
    """One rendered scene.

    Attributes:
        image: uint8 (H, W).
        masks: label or confounder -> bool (H, W), exact.
        boxes: tight boxes, one per connected site of a finding, in pixels.
    """

    image: NDArray[np.uint8]
    masks: dict[str, NDArray[np.bool_]]
    boxes: list[Box]


def render(scene: Scene, resolution: int) -> Rendering:
    """Render ``scene`` at ``resolution`` x ``resolution`` pixels."""
    patient = Chest(scene.anatomy, resolution, scene.address)
    overlays = [overlay(name, scene.anatomy, scene.address, resolution) for name in scene.confounders]
    if scene.domain == "source":
        bare = compose(patient, [])
        grey, sites = source.picture(patient, scene, expose(bare, bare, scene))
        for one in overlays:
            one.add_density(grey)
    else:
        healthy = compose(patient, [], vessels=False)
        density, sites = diseased(scene, patient)
        for one in overlays:
            one.add_density(density)
        grey = expose(density, healthy, scene)
        if scene.shift:  # the ground of the source domain shines through, findings stay visible
            grey += np.float32(0.5 * scene.shift) * (source.ground(patient, scene.address) - grey)
    for one in overlays:
        one.paint(grey)
    masks = {name: np.logical_or.reduce(parts) for name, parts in sites.items()}
    masks |= {one.name: one.mask for one in overlays}
    boxes = [tight_box(name, part) for name, parts in sites.items() for part in parts]
    image = np.rint(np.clip(grey, 0, 1) * 255).astype(np.uint8)
    return Rendering(image, masks, [box for box in boxes if box is not None])


def diseased(scene: Scene, patient: Chest, vessels: bool = True) -> tuple[Field, dict[str, list[NDArray[np.bool_]]]]:
    """Display density (H, W) of the scene with its findings, and the masks of the sites of each."""
    chest = patient
    enlarged = scene.finding("Cardiomegaly")
    if enlarged:
        chest = patient.with_heart(enlarged.ratio)
    effects: list[Effect] = []
    sites: dict[str, list[NDArray[np.bool_]]] = {}
    for finding in scene.findings:
        if finding.label == "Cardiomegaly":
            sites[finding.label] = [chest.heart > 0.5]
            continue
        mine = [EFFECTS[finding.label](chest, site, finding) for site in finding.sites]
        effects += mine
        sites[finding.label] = [effect.mask for effect in mine]
    return compose(chest, effects, vessels), sites


def compose(chest: Chest, effects: list[Effect], vessels: bool = True) -> Field:
    """Display density (H, W) of the chest with these findings; vessels and texture can be left out."""
    one = np.float32(1)

    def strongest(name: str) -> Field | np.float32:
        fields = [field for effect in effects if (field := getattr(effect, name)) is not None]
        return np.maximum.reduce(fields) if fields else np.float32(0)

    keep: Field | np.float32 = one
    for effect in effects:
        if effect.fill is not None:
            keep = keep * (one - effect.fill)
    free, line, congestion = strongest("lucent"), strongest("line"), strongest("congestion")
    density = chest.solid + np.float32(0.10) * chest.heart
    density += np.float32(0.06) * chest.mediastinum * (one - chest.heart)
    density -= np.float32(LUNG_AIR) * chest.air * keep * (one + np.float32(0.55) * free)
    density += np.float32(0.13) * line
    if vessels:
        marks = chest.vessels * chest.air * (one - free) * keep
        density += marks * (np.float32(0.15) + np.float32(0.12) * congestion)
        density += np.float32(0.016) * chest.texture * (density > 0.05)
    return density


def expose(density: Field, healthy: Field, scene: Scene) -> Field:
    """Grey values 0..1 of a density: scatter veil, detector blur, quantum noise, film curve, collimation.

    The veil is that of the chest without its findings (``healthy``): what a finding itself adds to it is below the
    noise, and so the finding changes pixels where it lies and nowhere else.
    """
    resolution, exposure = density.shape[0], scene.exposure
    share = np.float32(exposure.scatter)
    density = (1 - share) * density + share * blur_wide(healthy, 0.12)
    density = gaussian_filter(density, exposure.blur * resolution, truncate=2.5)
    curve = film(density, exposure)
    noise = generator(*scene.address, "noise", scene.take).standard_normal(density.shape, dtype=np.float32)
    # fewer quanta arrive behind dense tissue, so bright areas are noisier
    curve += noise * np.float32(exposure.noise) * (0.4 + 0.75 * curve)
    left, right, top, bottom = (round(width * resolution) for width in exposure.frame)
    curve[:top] = curve[resolution - bottom :] = 0.0
    curve[:, :left] = curve[:, resolution - right :] = 0.0
    return np.clip(curve, 0.0, 1.0)


def film(density: Field, exposure: Exposure) -> Field:
    """Characteristic curve: a logistic function of density, stretched to 0.02..0.97, then gamma."""
    k, level = exposure.contrast, exposure.level

    def logistic(value: Field | float) -> Field:
        grey: Field = 1 / (1 + np.exp(np.float32(-k) * (np.asarray(value, np.float32) - np.float32(level))))
        return grey

    low, high = logistic(-0.02), logistic(0.98)
    stretched = np.float32(0.02) + np.float32(0.95) * (logistic(density) - low) / (high - low)
    return np.clip(stretched, 0.0, 1.0) ** np.float32(exposure.gamma)


def tight_box(label: str, mask: NDArray[np.bool_]) -> Box | None:
    """Smallest box around ``mask`` without its specks (parts under a tenth of the largest); None for an empty mask."""
    parts, count = connected(mask)
    if not count:
        return None
    if count > 1:
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        mask = (sizes > 0.1 * sizes.max())[parts]
    rows, columns = find_objects(mask.astype(np.uint8))[0]
    return Box(label, columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
