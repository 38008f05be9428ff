"""The BiLSTM with max-pooling that classifies a sentence or a pair of sentences."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from .bilstm_nli_config import BiLstmNliConfig


class BiLstmNliForSequenceClassification(PreTrainedModel):
    """The network of Conneau et al. 2017, as ALI-G's paper trained it on SNLI.

    One bidirectional LSTM reads each sentence; the maximum of its outputs over the words is the sentence's vector. From the
    vectors u and v of a pair, three linear layers classify [u, v, |u - v|, u v]; of a single sentence they classify u.

    Differs from the authors' code: the maximum is over words alone unless `pool_padding` asks for theirs, and the vectors of
    the tokens that begin and end a sentence are trained.

    Papers: Conneau et al. 2017, arXiv 1705.02364; Berrada et al. 2020, arXiv 1906.05661.
    """

    config: BiLstmNliConfig
    config_class = BiLstmNliConfig
    main_input_name = "input_ids"

    def __init__(self, config: BiLstmNliConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.embedding = nn.Embedding(config.vocab_size - config.frozen_words, config.word_size)
        # A buffer, because transformers (5.24) unfreezes the parameters that it loads. All processes have read the same one.
        self.register_buffer(
            "vectors", torch.zeros(config.frozen_words, config.word_size) if config.frozen_words else None
        )
        self._ddp_params_and_buffers_to_ignore = ["vectors"]
        self.lstm = nn.LSTM(config.word_size, config.hidden_size, batch_first=True, bidirectional=True)
        features = 2 * config.hidden_size * (4 if config.sentences == 2 else 1)
        self.classifier = nn.Sequential(
            nn.Linear(features, config.classifier_size),
            nn.Linear(config.classifier_size, config.classifier_size),
            nn.Linear(config.classifier_size, config.num_labels),
        )
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding | nn.LSTM | nn.Linear):
            module.reset_parameters()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Logits of the classes, and the cross-entropy where labels are given.

        Args:
            input_ids: Words of each row's one or two sentences, shape (batch, length); padding may be anywhere.
            attention_mask: 1 for words, 0 for padding, shape (batch, length).
            token_type_ids: Which sentence of a pair each word belongs to, 0 or 1, shape (batch, length).
            labels: The right classes, shape (batch,).

        Returns:
            `loss` (scalar) and `logits`, shape (batch, classes).

        Raises:
            ValueError: A model of pairs gets no `token_type_ids`.
        """
        words = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        if self.config.drop_token_id is not None:
            words = words & (input_ids != self.config.drop_token_id)
        if self.config.sentences == 2:
            if token_type_ids is None:
                raise ValueError("token_type_ids are missing: they say which words are the second sentence's.")
            # All first sentences, then all second ones, so that the LSTM runs once.
            words = torch.cat([words & (token_type_ids == number) for number in (0, 1)])
            input_ids = input_ids.repeat(2, 1)
        vectors = self.encode(input_ids, words)
        if self.config.sentences == 2:
            u, v = vectors.chunk(2)
            vectors = torch.cat((u, v, (u - v).abs(), u * v), dim=1)
        logits = self.classifier(vectors)
        loss = None if labels is None else F.cross_entropy(logits.float(), labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def encode(self, input_ids: Tensor, words: Tensor) -> Tensor:
        """The vectors of sentences, shape (rows, 2 hidden_size).

        Args:
            input_ids: Words, shape (rows, length).
            words: True for a sentence's own words, shape (rows, length); those of a row need not be next to each other.
        """
        # A row without a word is read as one token of padding.
        input_ids = input_ids.masked_fill(~words, self.config.pad_token_id or 0)
        order = (~words).to(torch.uint8).argsort(dim=1, stable=True)  # the words come first, in order
        lengths = words.sum(1).clamp(min=1)
        embedded = self.embed(input_ids.gather(1, order))
        # Packing needs the lengths on the host.
        packed = pack_padded_sequence(embedded, lengths.cpu(), batch_first=True, enforce_sorted=False)
        outputs, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, padding_value=-torch.inf)
        vectors = outputs.amax(1)
        if self.config.pool_padding:
            longest = lengths.view(self.config.sentences, -1).amax(1, keepdim=True)
            padded = lengths.view(self.config.sentences, -1) < longest
            vectors = torch.where(padded.view(-1, 1), vectors.clamp(min=0), vectors)
        return vectors

    def embed(self, input_ids: Tensor) -> Tensor:
        """The vectors of words, shape (*input_ids.shape, word_size)."""
        if self.vectors is None:
            return self.embedding(input_ids)
        trained = self.embedding.num_embeddings
        fixed = F.embedding((input_ids - trained).clamp(min=0), self.vectors)
        return torch.where((input_ids < trained)[..., None], self.embedding(input_ids.clamp(max=trained - 1)), fixed)
