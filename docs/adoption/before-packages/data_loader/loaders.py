from torch.utils.data import DataLoader

from data_loader.digits import digits


def digit_loaders(batch_size):
    return DataLoader(digits(True), batch_size, shuffle=True), DataLoader(digits(False), 128)
