"""MART, misclassification-aware adversarial training (Wang et al., ICLR 2020, OpenReview rklOg6EFwS).

    L = BCE(x′) + beta · KL(p(x) ‖ p(x′)) · (1 − p_y(x)),    BCE(x′) = −log p_y(x′) − log(1 − max over k ≠ y of p_k(x′))

x′ is PGD's on the cross-entropy. Written from the paper. Differs: log(1 − max p_k) is worked out from the logits of the
other classes, so that it has a gradient where that probability rounds to 1; the KL is never below 0; images have
weights; x′ is made in eval mode.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from tasks.engine.batch import Batch
from tasks.losses import Inner, divergence, weighted_mean


class Params(Inner):
    beta: float = Field(default=5.0, ge=0)  # the paper's λ


def loss_at(net: nn.Module, batch: Batch, adversarial_BCHW: torch.Tensor, params: Params) -> torch.Tensor:
    """Boosted cross-entropy and the divergence of what is not yet answered rightly, both weighted means."""
    clean_BK, adversarial_BK = net(batch.images_BCHW).float(), net(adversarial_BCHW).float()
    own_B1 = batch.labels_B[:, None]
    wrong_B1 = adversarial_BK.detach().scatter(1, own_B1, -torch.inf).argmax(1)[:, None]
    others_B = adversarial_BK.scatter(1, wrong_B1, -torch.inf).logsumexp(1)  # all classes but the likeliest wrong one
    margin_B = adversarial_BK.logsumexp(1) - others_B  # −log(1 − max p_k)
    boosted_B = F.cross_entropy(adversarial_BK, batch.labels_B, reduction="none") + margin_B
    unsure_B = 1 - clean_BK.softmax(1).gather(1, own_B1)[:, 0]
    return weighted_mean(boosted_B + params.beta * divergence(clean_BK, adversarial_BK) * unsure_B, batch.weights_B)
