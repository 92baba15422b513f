"""Who may have the pictures and texts of a cohort: anybody, or only who has signed for them.

PhysioNet's credentialed data use agreement, under which MIMIC-CXR, MS-CXR and VinDr-CXR come, forbids to share the data,
and a service on the internet is somebody else. PadChest-GR is given on request, to the one who asked. NIH's, RSNA's,
Open-I's and MS-COCO's images anybody can download, and phantoms are made here. CIFAR-10 and Fashion-MNIST are free;
CelebA's faces must not be passed on. Source: the data use agreements.
"""

from collections.abc import Iterable
from typing import Literal, get_args

Access = Literal["public", "credentialed"]
ACCESS: tuple[Access, ...] = get_args(Access)
#: Cohorts that anybody may have. Any other is credentialed unless its manifest says public.
PUBLIC = frozenset({"phantom", "nih", "rsna", "open-i", "mscoco", "cifar10", "fashion_mnist"})
#: How a cohort is written in a sentence, where that is not its name.
TITLES = {"mimic-cxr": "MIMIC-CXR", "ms-cxr": "MS-CXR", "vindr-cxr": "VinDr-CXR", "padchest-gr": "PadChest-GR"}


def access_of(cohort: str) -> Access:
    """The access of a cohort that does not say it itself.

    Example:
        >>> access_of("nih"), access_of("ms-cxr"), access_of("never heard of")
        ('public', 'credentialed', 'credentialed')
    """
    return "public" if cohort in PUBLIC else "credentialed"


def credentialed_titles(cohorts: Iterable[tuple[str, Access]]) -> list[str]:
    """Of (cohort, access) the credentialed ones as a sentence names them, each once.

    Example:
        >>> credentialed_titles([("nih", "public"), ("ms-cxr", "credentialed"), ("ms-cxr", "credentialed")])
        ['MS-CXR']
    """
    return list(dict.fromkeys(TITLES.get(name, name) for name, access in cohorts if access != "public"))
